/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "dev/platform-i.h"

#include <stdlib.h>

struct platform {
	struct rtc *rtc;
	struct i8042 *kbd;
	struct pm *pm;
	struct misc *misc;
};

int platform_new(struct vm *v, struct platform **out, struct vh_err *e)
{
	struct platform *p = calloc(1, sizeof *p);
	int r;

	*out = NULL;
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	r = rtc_new(v, &p->rtc, e);
	if (!r)
		r = i8042_new(v, &p->kbd, e);
	if (!r)
		r = pm_new(v, &p->pm, e);
	if (!r)
		r = misc_new(v, &p->misc, e);
	if (r)
		platform_free(p);
	else
		*out = p;
	return r;
}

void platform_power_button(struct platform *p)
{
	pm_power_button(p->pm);
}

int platform_acpi_enabled(struct platform *p)
{
	return pm_button_enabled(p->pm);
}

void platform_reset(struct platform *p)
{
	rtc_reset(p->rtc);
	i8042_reset(p->kbd);
	pm_reset(p->pm);
	misc_reset(p->misc);
}

void platform_free(struct platform *p)
{
	if (!p)
		return;
	misc_free(p->misc);
	pm_free(p->pm);
	i8042_free(p->kbd);
	rtc_free(p->rtc);
	free(p);
}
