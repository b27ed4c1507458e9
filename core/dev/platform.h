/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The PC's own devices: serial, RTC and CMOS, i8042, reset ports, PM timer, power button, debug port. */
#ifndef DEV_PLATFORM_H
#define DEV_PLATFORM_H

#include "util/loop.h"
#include "vm/vm.h"

struct serial; struct platform;
/* A 16550A at 0x3f8, irq 4. Output goes to write(ctx, ...) (never blocks the vCPU for long: drop policy is the sink's). */
int serial_new(struct vm *v, void (*out)(void *ctx, const void *data, size_t len), void *ctx, struct serial **s, struct vh_err *e);
size_t serial_input(struct serial *s, const void *data, size_t len); /* [any] how many were taken; the rest later */
void serial_on_room(struct serial *s, void (*fn)(void *ctx), void *ctx); /* input can be offered again */
void serial_reset(struct serial *s);
void serial_free(struct serial *s);
int platform_new(struct vm *v, struct platform **p, struct vh_err *e);
void platform_power_button(struct platform *p); /* [any] SCI with PWRBTN_STS */
int platform_acpi_enabled(struct platform *p);  /* whether a guest listens to it */
void platform_reset(struct platform *p);
void platform_free(struct platform *p);

#endif
