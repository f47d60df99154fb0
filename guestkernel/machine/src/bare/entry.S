// Between the program and the kernel: SYSCALL lands here, exceptions and interrupts come from
// the monitor (mode `shared`, kernel and program both at CPL 3) or from ring0.S (mode `ring0`), and
// the kernel leaves for the program from here.
//
// The program's registers are stored in its UserContext, whose address is in the CPU's block.
// The kernel uses SSE but never AVX, so the XMM registers are all that is stored of the rest.

.pushsection .data.entry, "aw"
.balign 8
.globl syscall_gate
syscall_gate:
    .quad syscall_jump
.popsection

.pushsection .text.entry, "ax"

.macro save_general
    mov [rsp + {rbx}], rbx
    mov [rsp + {rdx}], rdx
    mov [rsp + {rsi}], rsi
    mov [rsp + {rdi}], rdi
    mov [rsp + {rbp}], rbp
    mov [rsp + {r8}], r8
    mov [rsp + {r9}], r9
    mov [rsp + {r10}], r10
    mov [rsp + {r12}], r12
    mov [rsp + {r13}], r13
    mov [rsp + {r14}], r14
    mov [rsp + {r15}], r15
.endm

.macro save_xmm
    .set number, 0
    .altmacro
    .rept 16
    save_one_xmm %number
    .set number, number + 1
    .endr
    .noaltmacro
.endm
.macro save_one_xmm number
    movaps [rsp + {xmm} + \number * 16], xmm\number
.endm

.macro load_xmm
    .set number, 0
    .altmacro
    .rept 16
    load_one_xmm %number
    .set number, number + 1
    .endr
    .noaltmacro
.endm
.macro load_one_xmm number
    movaps xmm\number, [rdi + {xmm} + \number * 16]
.endm

// Back to the caller of enter_program, with eax as its value.
.macro return_to_kernel
    mov dword ptr gs:[{in_program}], 0
    mov rsp, gs:[{kernel_rsp}]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
.endm

// What a patched system call of the program jumps to, with the address to return to in rcx: as
// SYSCALL, for a fiftieth of its cost.
.balign 64
syscall_jump:
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{context}]
    lea rsp, [rsp + {rflags} + 8]
    pushfq
    mov r11, [rsp]
    test r11d, 0x44400                                  // AC, NT, DF: not for the kernel
    jnz 3f
2:  lea rsp, [rsp - {rflags}]
    jmp 1f
3:  push 0x202                                          // where cs goes, soon
    popfq
    jmp 2b
.globl syscall_entry
.balign 64
syscall_entry:
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{context}]
1:  mov [rsp + {rax}], rax
    mov [rsp + {rcx}], rcx
    mov [rsp + {rip}], rcx
    mov qword ptr [rsp + {cs}], {user_cs}
    mov qword ptr [rsp + {ss}], {user_ss}
    mov [rsp + {r11}], r11
    mov [rsp + {rflags}], r11
    save_general
    mov rax, gs:[{user_rsp}]
    mov [rsp + {rsp}], rax
    save_xmm
    mov eax, gs:[{fast_return}]
    xor ecx, ecx
    test r11d, 0x44500                                  // flags that only IRETQ restores
    cmovnz eax, ecx
    mov [rsp + {leave_by}], eax
    xor eax, eax
    return_to_kernel

// SYSCALL at CPL 3 in mode `ring0`: at CPL 0, interrupts disabled by FMASK.
.globl syscall_entry_ring0
.balign 64
syscall_entry_ring0:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{context}]
    jmp 1b

// SYSCALL of 32-bit code, which only processors of AMD have: there are no 32-bit system calls. On the
// program's stack, with its GS.
.globl syscall_entry_compatibility
.balign 64
syscall_entry_compatibility:
    mov eax, -38                                        // ENOSYS
    .byte 0x0f, 0x07                                    // SYSRET to 32-bit code

// SYSCALL at CPL 3 in mode `shared` where it arrives at CPL 0: back to CPL 3, on the same way.
.globl syscall_entry_native
.balign 64
syscall_entry_native:
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{own}]
    add rsp, {exception_frame} + 40
    push {user_ss}
    push 0
    push 0x202
    push {user_cs}
    push offset syscall_entered
    iretq
syscall_entered:
    mov rsp, gs:[{context}]
    jmp 1b

// rdi: the UserContext. Returns why the program stopped: 0 system call, 1 exception, 2 interrupt.
.globl enter_program
.balign 64
enter_program:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov gs:[{kernel_rsp}], rsp
    mov gs:[{context}], rdi
.globl exit_restart
exit_restart:
    mov rdi, gs:[{context}]
    // Another CPU that wants our TLB flushed sets a bit of the latch and then looks whether we are
    // in the program; so we say that we are and then look at the latch, in this order.
    cmp dword ptr gs:[{is_alone}], 0
    jne 5f
    mov eax, 1
    xchg eax, gs:[{in_program}]
5:
    cmp qword ptr gs:[{latched}], 0
    jne 2f
    load_xmm
    mov rax, [rdi + {rax}]
    mov rbx, [rdi + {rbx}]
    mov rcx, [rdi + {rcx}]
    mov rdx, [rdi + {rdx}]
    mov rsi, [rdi + {rsi}]
    mov rbp, [rdi + {rbp}]
    mov r8, [rdi + {r8}]
    mov r9, [rdi + {r9}]
    mov r10, [rdi + {r10}]
    mov r11, [rdi + {r11}]
    mov r12, [rdi + {r12}]
    mov r13, [rdi + {r13}]
    mov r14, [rdi + {r14}]
    mov r15, [rdi + {r15}]
    cmp dword ptr [rdi + {leave_by}], 1
    jb 1f
    ja 3f
    // After SYSCALL: rcx holds the address to return to.
    lea rsp, [rdi + {rflags}]
    popfq
    mov rsp, [rdi + {rsp}]
    mov rdi, [rdi + {rdi}]
    jmp rcx
1:  lea rsp, [rdi + {rip}]
    mov rdi, [rdi + {rdi}]
    iretq
3:  cmp dword ptr [rdi + {leave_by}], 3
    je 4f
    mov rsp, [rdi + {rsp}]
    mov rdi, [rdi + {rdi}]
    swapgs
    sysretq
4:  lea rsp, [rdi + {rip}]
    mov rdi, [rdi + {rdi}]
    swapgs
    iretq
.globl exit_end
exit_end:
2:  mov eax, 2
    return_to_kernel

.globl upcall_exception
.balign 64
upcall_exception:
    cmp qword ptr gs:[{exception_frame}], {image_base}
    jae 1f
.globl program_exception
program_exception:
    mov rsp, gs:[{context}]
    mov rax, gs:[{exception_rax}]
    mov [rsp + {rax}], rax
    mov [rsp + {rcx}], rcx
    mov [rsp + {r11}], r11
    save_general
    mov rax, gs:[{exception_frame}]
    mov [rsp + {rip}], rax
    mov rax, gs:[{exception_frame} + 8]
    mov [rsp + {cs}], rax
    mov rax, gs:[{exception_frame} + 32]
    mov [rsp + {ss}], rax
    mov rax, gs:[{exception_frame} + 16]
    mov [rsp + {rflags}], rax
    mov rax, gs:[{exception_frame} + 24]
    mov [rsp + {rsp}], rax
    save_xmm
    mov dword ptr [rsp + {leave_by}], 0
    mov eax, 1
    return_to_kernel
    // A program that single-steps itself gets here by a jump before it notices.
1:  cmp qword ptr gs:[{exception_frame}], offset syscall_jump
    je program_exception
    mov rsp, gs:[{panic_rsp}]                           // the kernel faulted: a bug
    push 0
    push rbp
    mov rbp, rsp
    mov rdi, gs:[{own}]
    add rdi, {exception}
    call machine_fault

// In mode `ring0`: rdi points to what the gate has pushed.
.globl kernel_exception
kernel_exception:
    push 0
    push rbp
    mov rbp, rsp
    and rsp, -16
    call machine_fault

.globl upcall_double_fault
upcall_double_fault:
    mov rsp, gs:[{panic_rsp}]
    push 0
    push rbp
    mov rbp, rsp
    mov rdi, gs:[{own}]
    add rdi, {double_fault}
    call machine_fault

.globl upcall_interrupt
.balign 64
upcall_interrupt:
    mov rsp, gs:[{context}]
    mov [rsp + {rax}], rax
    mov [rsp + {rcx}], rcx
    mov [rsp + {r11}], r11
    save_general
    mov rax, gs:[{interrupt_frame}]
    mov [rsp + {rip}], rax
    mov rax, gs:[{interrupt_frame} + 8]
    mov [rsp + {cs}], rax
    mov rax, gs:[{interrupt_frame} + 32]
    mov [rsp + {ss}], rax
    mov rax, gs:[{interrupt_frame} + 16]
    mov [rsp + {rflags}], rax
    mov rax, gs:[{interrupt_frame} + 24]
    mov [rsp + {rsp}], rax
    sub qword ptr gs:[{ist1}], {nested}                 // the frame is read: the next may come
    save_xmm
    mov dword ptr [rsp + {leave_by}], 0
    mov eax, 2
    return_to_kernel

// rax: function of the monitor; other registers as it says.
.globl monitor_call
monitor_call:
    int 4
.globl monitor_call_return
monitor_call_return:
    ret

// rdi: the page map to load.
.globl switch_space
switch_space:
    int 4
.globl switch_space_return
switch_space_return:
    ret
.popsection
