// Prints the size of the terminal, and again when it has another one.

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    struct winsize first, now;
    ioctl(0, TIOCGWINSZ, &first);
    printf("first %d %d\n", first.ws_row, first.ws_col);
    fflush(stdout);
    do {
        struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
        ioctl(0, TIOCGWINSZ, &now);
    } while (now.ws_row == first.ws_row && now.ws_col == first.ws_col);
    printf("now %d %d\n", now.ws_row, now.ws_col);
    return 0;
}
