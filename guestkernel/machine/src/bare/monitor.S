// The monitor: all that runs at CPL 0 after boot. It turns exceptions and interrupts into
// upcalls at CPL 3 and executes the few privileged instructions that the kernel asks for.
//
// An instruction costs up to 0.6 µs here, so each path is as short as it can be. Only general
// registers are used. See per_cpu.rs for the stacks.

.pushsection .monitor, "awx"
.balign 65536
.globl monitor_start
monitor_start:

// Exceptions: leave vector, cr2, rax and code below the frame; enter the kernel at CPL 3.
.macro exception vector, has_code
.balign 16
exception_\vector:
    .if \has_code == 0
    push 0
    .endif
    push rax
    mov rax, cr2
    push rax
    push \vector
    add rsp, {to_upcall}
    iretq
.endm

    exception 0, 0
    exception 1, 0
    exception 3, 0
    exception 5, 0
    exception 6, 0
    exception 7, 0
    exception 8, 1
    exception 9, 0
    exception 10, 1
    exception 11, 1
    exception 12, 1
    exception 13, 1
    exception 15, 0
    exception 16, 0
    exception 17, 1
    exception 18, 0
    exception 19, 0
    exception 20, 0
    exception 21, 1
    exception 22, 0
    exception 23, 0
    exception 24, 0
    exception 25, 0
    exception 26, 0
    exception 27, 0
    exception 28, 0
    exception 29, 1
    exception 30, 1
    exception 31, 0

// NMIs, on a stack of their own and at any instruction, also of this file.
.balign 16
exception_2:
    push rbp                                            // stays there when it is popped
    inc qword ptr [rsp + 8 + {nmi_count}]
    pop rbp
    iretq

// Page faults: the kernel leaves their vector where it is stored.
.balign 16
exception_14:
    push rax
    mov rax, cr2
    push rax
    add rsp, {to_upcall} - 8
    iretq

// INT 4 at one of two places in the kernel is a call of the monitor: a switch of the address space,
// or the function in rax. It costs half of what an instruction that faults does.
.balign 16
exception_4:
    cmp qword ptr [rsp], offset switch_space_return
    jne 1f
    mov cr3, rdi
    iretq
1:  cmp qword ptr [rsp], offset monitor_call_return
    jne 2f
    jmp qword ptr [monitor_functions + rax * 8]
2:  push 0
    push rax
    push rax                                            // where cr2 would be
    push 4
    add rsp, {to_upcall}
    iretq

monitor_functions:
    .quad monitor_wait, monitor_wrmsr, monitor_outs, monitor_in, monitor_reset, monitor_invlpg

// Waits for an interrupt unless one is latched.
monitor_wait:
    cmp qword ptr gs:[{latched}], 0
    jne 1f
    sti
monitor_halt:
    hlt
    cli
1:  iretq

monitor_invlpg:                                         // rdi: the address
    invlpg [rdi]
    iretq

monitor_wrmsr:                                          // ecx: register, edi and edx: halves
    mov eax, edi
    wrmsr
    iretq

monitor_outs:                                           // dx: port, rsi: bytes, rcx: how many
    rep outsb
    iretq

monitor_in:                                             // dx: port; al: the byte
    in al, dx
    iretq

monitor_reset:                                          // a fault without gates: triple fault
    push 0
    push 0
    lidt [rsp]
    int3

// Interrupts: latch the vector; enter the kernel if the program was running. In the kernel,
// return; from the exit path's window between its look at the latch and the program's first
// instruction, return to the look.
.macro interrupt bit
.balign 16
interrupt_\bit:
    bts qword ptr gs:[{latched}], \bit
    cmp byte ptr [rsp + 7], 0
    jl interrupt_in_kernel
    add qword ptr gs:[{ist1}], {nested}
    add rsp, 40
    iretq
.endm

    .altmacro
    .set bit, 0
    .rept 64
    interrupt %bit
    .set bit, bit + 1
    .endr
    .noaltmacro

interrupt_in_kernel:
    cmp qword ptr [rsp], offset exit_restart
    jb 1f
    cmp qword ptr [rsp], offset exit_end
    jae 1f
    mov qword ptr [rsp], offset exit_restart
1:  iretq

interrupt_spurious:
    iretq

.balign 16
.globl idt
.macro gate target, kind, ist
    .word \target - monitor_start, 0x10
    .byte \ist, \kind
    .word {monitor_middle}
    .long 0xffffffff, 0
.endm
.macro exception_gate vector, kind, ist
    gate exception_\vector, \kind, \ist
.endm
.macro interrupt_gate bit
    gate interrupt_\bit, 0x8e, 1
.endm
idt:
    .altmacro
    .set vector, 0
    .rept 32
    .if vector == 2
    exception_gate %vector, 0x8e, 3
    .elseif vector == 8 || vector == 18
    exception_gate %vector, 0x8e, 2
    .elseif vector == 3 || vector == 4
    exception_gate %vector, 0xee, 0
    .else
    exception_gate %vector, 0x8e, 0
    .endif
    .set vector, vector + 1
    .endr
    .set bit, 0
    .rept 64
    interrupt_gate %bit
    .set bit, bit + 1
    .endr
    .noaltmacro
    .rept 256 - 32 - 64
    gate interrupt_spurious, 0x8e, 1
    .endr
.popsection
