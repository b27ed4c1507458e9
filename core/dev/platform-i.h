/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the platform: each adds its ports, and resets and removes them. */
#ifndef DEV_PLATFORM_I_H
#define DEV_PLATFORM_I_H

#include "dev/platform.h"

struct rtc; struct i8042; struct pm; struct misc;

int rtc_new(struct vm *v, struct rtc **out, struct vh_err *e);
void rtc_reset(struct rtc *r);
void rtc_free(struct rtc *r);

int i8042_new(struct vm *v, struct i8042 **out, struct vh_err *e);
void i8042_reset(struct i8042 *k);
void i8042_free(struct i8042 *k);

int pm_new(struct vm *v, struct pm **out, struct vh_err *e);
void pm_reset(struct pm *p);
void pm_free(struct pm *p);
void pm_power_button(struct pm *p);
int pm_button_enabled(struct pm *p);
uint32_t pm_ticks(uint64_t ns); /* the 3.579545 MHz counter at a CLOCK_MONOTONIC time */

/* Port 0x92, the APM ports 0xb2 and 0xb3, the debug console 0x402, pvpanic. */
int misc_new(struct vm *v, struct misc **out, struct vh_err *e);
void misc_reset(struct misc *m);
void misc_free(struct misc *m);

#endif
