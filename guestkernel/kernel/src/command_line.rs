//! The kernel's command line: words, of which those before `--` are the kernel's.

/// The value of the last parameter `name=value` on the command line, before ` -- `.
pub(crate) fn parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line
        .split_ascii_whitespace()
        .take_while(|word| *word != "--")
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_before_the_program_counts() {
        let line = "mode=auto x mode=ring0 mode -- mode=shared";
        assert_eq!(parameter(line, "mode"), Some("ring0"));
        assert_eq!(parameter(line, "loglevel"), None);
        assert_eq!(parameter("", "mode"), None);
    }
}
