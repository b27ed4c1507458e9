/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * From the PVH entry (32 bits, no paging) to guest_main in ring 3 in as few instructions as possible: on a KVM without
 * VT-x, ring 0 is emulated at some 650 ns each. All tables are data. Ring 3 may use every port (an empty I/O map) and
 * all of memory, page tables included (the U bit).
 */
#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_USER_DATA 0x1b
#define SEL_USER_CODE 0x23
#define SEL_TSS 0x28
#define SEL_CODE32 0x38

	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long pvh_start

	.section .tss, "aw"
	.globl tss
tss:
	.long 0
	.quad ring0_stack_top, 0, 0	/* rsp0-2 */
	.quad 0
	.quad ring0_stack_top, ring0_stack_top, 0, 0, 0, 0, 0 /* ist1-7 */
	.quad 0
	.word 0, 104			/* the I/O map follows */
	.fill 8192, 1, 0
	.byte 0xff

	.section .tables, "aw"
	.balign 4096
	.globl pml4
pml4:	.quad pdpt + 7
	.fill 511, 8, 0
	.globl pdpt
pdpt:	.quad pd0 + 7, pd0 + 0x1007, pd0 + 0x2007, pd0 + 0x3007
	.fill 508, 8, 0
pd0:	/* 4 GiB of 2 MiB pages, identity, user; what lies from 0xb0000000 is not cached */
	.set i, 0
	.rept 0x580
	.quad (i << 21) + 0x87
	.set i, i + 1
	.endr
	.rept 0x280
	.quad (i << 21) + 0x9f
	.set i, i + 1
	.endr
	.balign 16
	.globl gdt
gdt:	.quad 0
	.quad 0x00af9b000000ffff	/* 0x08 64-bit code */
	.quad 0x00cf93000000ffff	/* 0x10 data */
	.quad 0x00cff3000000ffff	/* 0x18 user data */
	.quad 0x00affb000000ffff	/* 0x20 user 64-bit code */
	.word 0x2068, 0x0000		/* 0x28 TSS at 0x200000 */
	.byte 0x20, 0x89, 0, 0
	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x38 32-bit code */
gdt_end:
gdt_ptr: .word gdt_end - gdt - 1
	.quad gdt
	.balign 16
	.globl idt
idt:	.fill 64, 8, 0			/* 32 gates, filled by ring 3 */
idt_ptr: .word 511
	.quad idt
	.globl start_info
start_info: .quad 0

	.section .text.start, "ax"
	.code32
	.globl pvh_start
pvh_start:
	movl %ebx, start_info
	lgdt gdt_ptr
	movl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER: LME */
	movl $0x100, %eax
	xorl %edx, %edx
	wrmsr
	movl $0x80000011, %eax		/* PG ET PE */
	movl %eax, %cr0
	ljmp $SEL_CODE64, $long_start
	.code64
long_start:
	movl $SEL_TSS, %eax
	ltr %ax
	lidt idt_ptr
	movl $ring0_stack_top, %esp
	pushq $SEL_USER_DATA
	pushq $main_stack_top
	pushq $2
	pushq $SEL_USER_CODE
	pushq $guest_start
	iretq

/* Exceptions: their frame is turned into a call of guest_exception(vector, error, rip, cr2) in ring 3. */
	.macro stub n err
	.balign 16
	.if \err == 0
	pushq $0
	.endif
	pushq $\n
	jmp exception
	.endm
	.balign 16
	.globl exception_stubs
exception_stubs:
	.set n, 0
	.rept 32
	.if n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30
	stub n, 1
	.else
	stub n, 0
	.endif
	.set n, n + 1
	.endr
	.balign 16
exception:
	popq %rdi
	popq %rsi
	movq (%rsp), %rdx
	movq %cr2, %rcx
	movq $guest_exception, (%rsp)
	movq $exception_stack_top - 8, 24(%rsp)
	iretq

/* A further CPU, from SIPI: real mode at page 8 (the code is copied there), then as above. ap_stack, ap_entry and
 * ap_claim are set by smp.c; the stacks are claimed one after the other. */
	.globl ap_trampoline, ap_trampoline_end
	.code16
ap_trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl (ap_gdt_ptr - ap_trampoline + 0x8000)
	movl $0x11, %eax
	movl %eax, %cr0
	ljmpl $SEL_CODE32, $ap_32
	.balign 4
ap_gdt_ptr:
	.word gdt_end - gdt - 1
	.long gdt
ap_trampoline_end:
	.code32
ap_32:
	movl $SEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %ss
	movl $0x20, %eax
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	movl $0x100, %eax
	xorl %edx, %edx
	wrmsr
	movl $0x80000011, %eax
	movl %eax, %cr0
	ljmp $SEL_CODE64, $ap_64
	.code64
ap_64:
	movl $16384, %eax
	lock xaddl %eax, ap_stack
	movl %eax, %esp
	movb $0x89, gdt + SEL_TSS + 5	/* not busy: the TSS is shared, since APs take no exception that returns */
	movl $SEL_TSS, %eax
	ltr %ax
	lidt idt_ptr
	movl %esp, %ecx
	pushq $SEL_USER_DATA
	pushq %rcx
	pushq $2
	pushq $SEL_USER_CODE
	pushq $ap_start
	iretq
ap_start:
	andq $-16, %rsp
	call guest_ap
1:	pause
	jmp 1b

	.globl guest_start
guest_start:
	call guest_boot
1:	jmp 1b

	.bss
	.balign 16
	.globl ap_stack
ap_stack: .quad 0
	.skip 8192
ring0_stack_top:
	.skip 8192
exception_stack_top:
	.skip 65536
main_stack_top:
	.section .note.GNU-stack, "", @progbits
