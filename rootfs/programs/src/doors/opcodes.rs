//! Opcodes of a ring that no system call with the same arguments stands for.

use linux_raw_sys::io_uring::io_uring_op;

use super::argument::Arg;
use super::operation::{Entry, Gives, Operation};

/// An operation of one SQE with that opcode, whose fields the setters fill.
pub fn opcode(name: &'static str, number: u8) -> Operation {
    Operation::entry(Entry::new(name, number))
}

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident $opcode:ident($($arg:ident: $field:ident),*);)*) => {
        $(
            $(#[$doc])*
            pub fn $name($($arg: impl Into<Arg>),*) -> Operation {
                opcode(stringify!($opcode), io_uring_op::$opcode as u8)$(.$field($arg))*
            }
        )*
    };
}

opcodes! {
    /// `NOP`.
    nop IORING_OP_NOP();
    /// `READ_FIXED`, from the current position: of buffer 0.
    read_fixed IORING_OP_READ_FIXED(fd: fd, buffer: addr, offset: off);
    /// `WRITE_FIXED`, of buffer 0.
    write_fixed IORING_OP_WRITE_FIXED(fd: fd, buffer: addr, offset: off);
    /// `READV_FIXED`, of buffer 0.
    readv_fixed IORING_OP_READV_FIXED(fd: fd, vectors: addr, offset: off);
    /// `WRITEV_FIXED`, of buffer 0.
    writev_fixed IORING_OP_WRITEV_FIXED(fd: fd, vectors: addr, offset: off);
    /// `TIMEOUT` that also ends after so many completions, if not 0.
    timeout_after IORING_OP_TIMEOUT(time: addr, count: off);
    /// `TIMEOUT_REMOVE` of what has that `user_data`.
    timeout_remove IORING_OP_TIMEOUT_REMOVE(user_data: addr);
    /// `LINK_TIMEOUT`.
    link_timeout IORING_OP_LINK_TIMEOUT(time: addr);
    /// `ASYNC_CANCEL` of what has that `user_data`.
    cancel IORING_OP_ASYNC_CANCEL(user_data: addr);
    /// `POLL_ADD`; the events are the flags.
    poll_add IORING_OP_POLL_ADD(fd: fd);
    /// `POLL_REMOVE` of what has that `user_data`.
    poll_remove IORING_OP_POLL_REMOVE(user_data: addr);
    /// `FILES_UPDATE` of fixed slots from that one on.
    files_update IORING_OP_FILES_UPDATE(descriptors: addr, slot: off);
    /// `PROVIDE_BUFFERS`, as many as `fd` says, from that number on.
    provide_buffers IORING_OP_PROVIDE_BUFFERS(count: fd, buffers: addr, first: off);
    /// `REMOVE_BUFFERS`, as many as `fd` says.
    remove_buffers IORING_OP_REMOVE_BUFFERS(count: fd);
    /// `MSG_RING` to the ring `fd`: `len` is what `res` becomes, `off` what `user_data` becomes.
    msg_ring IORING_OP_MSG_RING(fd: fd, command: addr, user_data: off);
    /// `FUTEX_WAIT`.
    futex_wait IORING_OP_FUTEX_WAIT(word: addr, value: off, mask: addr3, size_flags: fd);
    /// `FUTEX_WAKE`.
    futex_wake IORING_OP_FUTEX_WAKE(word: addr, count: off, mask: addr3, size_flags: fd);
    /// `FIXED_FD_INSTALL` of a fixed slot.
    fixed_fd_install IORING_OP_FIXED_FD_INSTALL(slot: fd);
    /// `READ_MULTISHOT` of a group of buffers.
    read_multishot IORING_OP_READ_MULTISHOT(fd: fd, offset: off);
    /// `EPOLL_WAIT`.
    epoll_wait IORING_OP_EPOLL_WAIT(fd: fd, events: addr);
}

/// An opcode that no Linux has.
pub fn unknown() -> Operation {
    opcode("IORING_OP_250", 250)
}

/// `TIMEOUT`.
pub fn timeout(time: impl Into<Arg>) -> Operation {
    timeout_after(time, 0).len(1)
}

/// An operation that gives a descriptor, by the ring.
pub fn gives_descriptor(mut operation: Operation) -> Operation {
    if let Some(entry) = operation.batch.as_mut().and_then(|batch| batch.last_mut()) {
        entry.gives = Gives::Fd;
    }
    operation
}
