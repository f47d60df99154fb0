// Boot: from the PVH entry (32-bit, paging off, CPL 0) to the kernel's first Rust function.
//
// Every instruction at CPL 0 may be emulated (0.6 µs, and no SSE), so this does only what needs
// CPL 0. PVH: ebx holds the physical address of the start info.

.set VIRTUAL, 0xffffffff80000000
.set CR4_BITS, (1 << 5) | (1 << 9) | (1 << 10)          // PAE, OSFXSR, OSXMMEXCPT
.set CR4_FSGSBASE, 1 << 16

.pushsection .note.pvh, "a", @note
    .long 4, 8, 18                                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry - VIRTUAL
.popsection

.pushsection .boot, "awx"
.code32
.globl pvh_entry
pvh_entry:
    cld
    mov dword ptr [{control} + {control_mark}], 1       // the timeline's first mark
    mov edi, ebx
    mov eax, 7                                          // FSGSBASE where CPUID has it
    xor ecx, ecx
    cpuid
    mov eax, CR4_BITS
    test ebx, 1
    jz 1f
    or eax, CR4_FSGSBASE
    mov dword ptr [boot_has_fsgsbase - VIRTUAL], 1
1:  mov cr4, eax
    mov ecx, 0xc0000080                                 // EFER: SCE, LME, NXE
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, offset page_map - VIRTUAL
    mov cr3, eax
    mov eax, {control0}
    mov cr0, eax
    lgdt [gdt_pointer_low - VIRTUAL]
    .byte 0xea                                          // ljmp 0x10, long_mode
    .long long_mode - VIRTUAL
    .word 0x10

.code64
long_mode:
    mov rax, offset high
    jmp rax
high:
    mov edi, edi
    mov ax, 0x18
    mov ss, ax
    mov ds, ax
    mov es, ax
    lgdt [rip + gdt_pointer]
    lea rsi, [rip + BOOT_CPU]
    mov rax, rsi                                        // the base of the TSS, in its four pieces
    lea rdx, [rip + gdt + 0x40]
    mov word ptr [rdx], 0x67
    mov word ptr [rdx + 2], ax
    shr rax, 16
    mov byte ptr [rdx + 4], al
    mov byte ptr [rdx + 5], 0x89
    mov byte ptr [rdx + 7], ah
    shr rax, 16
    mov dword ptr [rdx + 8], eax
    mov ax, 0x40
    ltr ax
    lidt [rip + idt_pointer]
    mov ecx, 0xc0000081                                 // STAR: SYSCALL 0x10/0x18, SYSRET base 0x20
    xor eax, eax
    mov edx, 0x00230010
    wrmsr
    mov ecx, 0xc0000083                                 // CSTAR
    mov eax, offset syscall_entry_compatibility - VIRTUAL + 0x80000000
    mov edx, 0xffffffff
    wrmsr
    mov ecx, 0xc0000101                                 // GS base
    mov eax, esi
    shr rsi, 32
    mov edx, esi
    wrmsr
    mov al, 0xff                                        // the PIC is not used
    out 0x21, al
    out 0xa1, al
    mov eax, 0x40000000                                 // is this KVM?
    cpuid
    xor eax, eax
    cmp ebx, 0x4b4d564b
    jne 2f
    mov eax, 0x40000001
    cpuid
2:  mov dword ptr [rip + boot_kvm_features], eax
    mov r8d, 5                                          // is CPL 0 emulated? It is not if it was
                                                        // fast once: a host may interrupt us
2:  rdtsc
    mov esi, eax
    mov ecx, 8
3:  dec ecx
    jnz 3b
    rdtsc
    sub eax, esi
    cmp eax, {emulated_cycles}
    jb 4f
    dec r8d
    jnz 2b
4:
    mov dword ptr [rip + boot_loop_cycles], eax
    mov rdx, cr4
    mov [rip + boot_control4], rdx
    cmp eax, {emulated_cycles}
    jb native

    mov eax, offset syscall_entry - VIRTUAL + 0x80000000
shared:                                                 // eax: where SYSCALL goes
    mov dword ptr [rip + boot_syscall_entry], eax
    mov ecx, 0xc0000082                                 // LSTAR
    mov edx, 0xffffffff
    wrmsr
    mov ecx, 0xc0000084                                 // FMASK: TF, DF, NT, AC
    mov eax, {shared_mask}
    mov dword ptr [rip + boot_syscall_mask], eax
    xor edx, edx
    wrmsr
    lea rsp, [rip + kernel_stack_end]
    push 0x2b
    lea rax, [rip + kernel_stack_end - 8]
    push rax
    push 0x202
    push 0x33
    lea rax, [rip + machine_start]
    push rax
    iretq

native:
    mov eax, 1
    cpuid
    bt edx, 7                                           // machine checks
    jnc 1f
    mov rax, cr4
    bts rax, 6
    mov cr4, rax
    mov [rip + boot_control4], rax
1:  bt ecx, 26                                          // XSAVE with all that programs may use
    jnc 1f
    mov rax, cr4
    bts rax, 18
    mov cr4, rax
    mov [rip + boot_control4], rax
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    and eax, {extended_states}
    xor ecx, ecx
    xor edx, edx
    xsetbv
1:  mov rsi, [rdi + 24]
    mov rdx, 0x6168733d65646f6d                         // does the command line say mode=sha(red)?
1:  cmp byte ptr [rsi], 0
    je ring0
    cmp [rsi], rdx
    mov eax, offset syscall_entry_native - VIRTUAL + 0x80000000
    je shared
    inc rsi
    jmp 1b

ring0:
    and qword ptr [rip + page_map + {physical_map_slot} * 8], ~4    // supervisor pages
    and qword ptr [rip + page_map + 511 * 8], ~4
    mov rax, cr3
    mov cr3, rax
    mov eax, 7                                          // SMEP and SMAP where CPUID has them
    xor ecx, ecx
    cpuid
    mov rax, cr4
    bt ebx, 7
    jnc 1f
    bts rax, 20
1:  bt ebx, 20
    jnc 2f
    bts rax, 21
2:  mov cr4, rax
    mov [rip + boot_control4], rax
    mov ecx, 0xc0000082                                 // LSTAR
    mov eax, offset syscall_entry_ring0 - VIRTUAL + 0x80000000
    mov dword ptr [rip + boot_syscall_entry], eax
    mov edx, 0xffffffff
    wrmsr
    mov ecx, 0xc0000084                                 // FMASK: as above, and IF
    mov eax, {ring0_mask}
    mov dword ptr [rip + boot_syscall_mask], eax
    xor edx, edx
    wrmsr
    lea rsp, [rip + kernel_stack_end - 8]
    jmp machine_start
.popsection

.pushsection .boot.data, "aw"
.balign 16
.globl gdt
gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff                            // 0x10 kernel code
    .quad 0x00cf93000000ffff                            // 0x18 kernel data
    .quad 0x00cffb000000ffff                            // 0x20 user code, 32 bit: SYSRET's base
    .quad 0x00cff3000000ffff                            // 0x28 user data
    .quad 0x00affb000000ffff                            // 0x30 user code
    .quad 0
    .fill {max_cpus} * 2, 8, 0                          // 0x40 a TSS for each CPU: see smp.rs
gdt_end:
gdt_pointer_low:
    .word gdt_end - gdt - 1
    .long gdt - VIRTUAL
.balign 8
    .word 0, 0, 0
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
.balign 8
    .word 0, 0, 0
idt_pointer:
    .word 256 * 16 - 1
    .quad idt
.globl boot_kvm_features, boot_loop_cycles, boot_has_fsgsbase
boot_syscall_entry: .long 0
boot_syscall_mask: .long 0
boot_has_fsgsbase: .long 0
boot_kvm_features: .long 0
boot_loop_cycles:  .long 0

// Page tables: the first 4 GiB at 0 (until the kernel removes it), at the physical map, and the
// first GiB at VIRTUAL; the last GiB, where devices are, uncached.
.balign 4096
.globl page_map
page_map:
    .quad page_map_low - VIRTUAL + 7
    .fill {physical_map_slot} - 1, 8, 0
    .quad page_map_low - VIRTUAL + 7
    .fill 510 - {physical_map_slot}, 8, 0
    .quad page_map_high - VIRTUAL + 7
page_map_low:
    .quad page_directories - VIRTUAL + 7
    .quad page_directories - VIRTUAL + 0x1000 + 7
    .quad page_directories - VIRTUAL + 0x2000 + 7
    .quad page_directories - VIRTUAL + 0x3000 + 7
    .fill 508, 8, 0
page_map_high:
    .fill 510, 8, 0
    .quad page_directories - VIRTUAL + 7
    .quad 0
page_directories:
    .set address, 0
    .rept 3 * 512
    .quad address + 0x87
    .set address, address + 0x200000
    .endr
    .rept 512
    .quad address + 0x9f
    .set address, address + 0x200000
    .endr
.popsection

.pushsection .bss.stack, "aw", @nobits
.balign 4096
.globl kernel_stack_end
    .skip {boot_stack_size}
kernel_stack_end:
.globl panic_stack_end
    .skip {panic_stack_size}
panic_stack_end:
.popsection

// Another CPU of the machine starts here in real mode, at a page below 1 MiB to which the kernel
// has copied this code; all addresses in it are therefore physical or relative.
.pushsection .rodata.start, "a"
.code16
.globl cpu_start, cpu_start_end
cpu_start:
    cli
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16                        // lgdt [cpu_start_gdt_pointer], 32-bit base
    .word cpu_start_gdt_pointer - cpu_start
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea                                    // ljmp 0x08, cpu_start32
    .long cpu_start32 - VIRTUAL
    .word 8
.balign 8
cpu_start_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff                            // 0x08 code, 32 bit
    .quad 0x00cf93000000ffff                            // 0x10 data
cpu_start_gdt_pointer:
    .word 23
    .long {start_page} + cpu_start_gdt - cpu_start
cpu_start_end:
.popsection

.pushsection .boot, "awx"
.code32
cpu_start32:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, [boot_control4 - VIRTUAL]
    mov edx, eax
    and eax, ~{later_control4}                          // SMEP and SMAP when the tables are ours
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, offset page_map - VIRTUAL
    mov cr3, eax
    mov eax, {control0}
    mov cr0, eax
    lgdt [gdt_pointer_low - VIRTUAL]
    .byte 0xea
    .long cpu_start64 - VIRTUAL
    .word 0x10
.code64
cpu_start64:
    mov rax, offset cpu_start_high
    jmp rax
cpu_start_high:
    mov ax, 0x18
    mov ss, ax
    mov ds, ax
    mov es, ax
    lgdt [rip + gdt_pointer]
    mov eax, dword ptr [rip + boot_control4]
    mov cr4, rax
    bt eax, 18
    jnc 1f
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    and eax, {extended_states}
    xor ecx, ecx
    xor edx, edx
    xsetbv
1:  mov rsi, [rip + starting_cpu]                       // its block
    mov eax, [rsi + {number}]
    shl eax, 4
    add eax, 0x40
    ltr ax
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x00230010
    wrmsr
    mov ecx, 0xc0000083
    mov eax, offset syscall_entry_compatibility - VIRTUAL + 0x80000000
    mov edx, 0xffffffff
    wrmsr
    mov ecx, 0xc0000082
    mov eax, dword ptr [rip + boot_syscall_entry]
    mov edx, 0xffffffff
    wrmsr
    mov ecx, 0xc0000084
    mov eax, dword ptr [rip + boot_syscall_mask]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000101
    mov rax, rsi
    mov rdx, rsi
    shr rdx, 32
    wrmsr
    mov rsp, [rsi + {stack}]
    cmp qword ptr [rip + starting_gates], 0
    jne 2f
    lidt [rip + idt_pointer]
    push 0x2b
    lea rax, [rsp]
    push rax
    push 0x202
    push 0x33
    lea rax, [rip + machine_start_cpu]
    push rax
    iretq
2:  mov rax, [rip + starting_gates]
    lidt [rax]
    push 0                                              // the stack as after a call
    jmp machine_start_cpu
.popsection

.pushsection .boot.data, "aw"
.balign 8
.globl starting_cpu, starting_gates, boot_control4
starting_cpu:   .quad 0
starting_gates: .quad 0
boot_control4:  .quad 0
.popsection
