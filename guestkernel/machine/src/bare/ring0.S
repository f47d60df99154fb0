// Mode `ring0`: gates for a kernel that runs at CPL 0 with interrupts disabled.
//
// An exception of the program arrives on the CPU's exception stack and goes the way of an upcall;
// one of the kernel is a bug and arrives on whatever stack the kernel is on. Interrupts arrive
// while the program runs, or in the window in which an idle CPU halts.

.pushsection .text.entry, "ax"

.macro exception_ring0 vector, has_code
.balign 16
exception_ring0_\vector:
    .if \has_code == 0
    push 0
    .endif
    push rax
    mov rax, cr2
    push rax
    push \vector
    jmp exception_ring0
.endm

    .altmacro
    .set vector, 0
    .rept 32
    .if vector == 8 || vector == 17 || vector == 21 || vector == 29 || vector == 30
    exception_ring0 %vector, 1
    .elseif vector >= 10 && vector <= 14
    exception_ring0 %vector, 1
    .else
    exception_ring0 %vector, 0
    .endif
    .set vector, vector + 1
    .endr
    .noaltmacro

exception_ring0:
    test byte ptr [rsp + 40], 3                         // the CPL that was interrupted
    mov rax, [rsp + 16]
    jz 1f
    swapgs
    push 2                                              // the program's AC and DF are not ours
    popfq
    jmp program_exception
1:  mov rdi, rsp
    jmp kernel_exception

// Double faults and machine checks end the VM. They may come between an entry and its SWAPGS, so
// GS is found anew: these stacks are in the CPU's block, which is a page.
.balign 16
machine_check_ring0:
    push 0
    push rax
    mov rax, cr2
    push rax
    push 18
    jmp fatal_ring0
.balign 16
double_fault_ring0:
    push rax
    mov rax, cr2
    push rax
    push 8
fatal_ring0:
    mov rdi, rsp
    mov rax, rsp
    and rax, -4096
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0xc0000101                                 // GS base
    wrmsr
    mov rsp, gs:[{panic_rsp}]
    cld
    jmp kernel_exception

// On a stack of its own, at any instruction and with any GS.
.balign 16
nmi_ring0:
    push rbp                                            // stays there when it is popped
    inc qword ptr [rsp + 8 + {nmi_count}]
    pop rbp
    iretq

.macro interrupt_ring0 bit
.balign 16
interrupt_ring0_\bit:
    test byte ptr [rsp + 8], 3
    jz 1f
    swapgs
    push 2                                              // as above
    popfq
    bts qword ptr gs:[{latched}], \bit
    add qword ptr gs:[{ist1}], {nested}                 // as the upcall expects it
    jmp upcall_interrupt
1:  bts qword ptr gs:[{latched}], \bit
    iretq
.endm

    .altmacro
    .set bit, 0
    .rept 64
    interrupt_ring0 %bit
    .set bit, bit + 1
    .endr
    .noaltmacro

.balign 16
spurious_ring0:
    iretq
.popsection

// Gates hold their target's address in pieces, which only the kernel itself can make of a label:
// this is the table of targets.
.pushsection .rodata.gates, "a"
.balign 8
.globl gate_targets
.macro target name
    .quad \name
.endm
.macro exception_target vector
    target exception_ring0_\vector
.endm
.macro interrupt_target bit
    target interrupt_ring0_\bit
.endm
gate_targets:
    .altmacro
    .set vector, 0
    .rept 32
    .if vector == 2
    target nmi_ring0
    .elseif vector == 8
    target double_fault_ring0
    .elseif vector == 18
    target machine_check_ring0
    .else
    exception_target %vector
    .endif
    .set vector, vector + 1
    .endr
    .set bit, 0
    .rept 64
    interrupt_target %bit
    .set bit, bit + 1
    .endr
    .noaltmacro
    target spurious_ring0
.popsection
