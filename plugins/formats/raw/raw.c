/* SPDX-License-Identifier: LGPL-2.1-or-later */
int raw_placeholder;
