/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The guest of the start-up benchmark: its first instructions send one byte and power off. */
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long pvh_start
	.section .text.start, "ax"
	.code32
	.globl pvh_start
pvh_start:
	movw $0x3f8, %dx
	movb $'!', %al
	outb %al, %dx
	movw $0x604, %dx
	movw $0x2000, %ax
	outw %ax, %dx
	lidt none		/* no ACPI (microvm): a triple fault */
	ud2
none:	.word 0
	.long 0
	.section .note.GNU-stack, "", @progbits
