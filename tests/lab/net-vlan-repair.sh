#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# What others take from under ports with VLANs is put back: minutes of their own, which the other lab can have.
VLAN_TESTS=vlan-repair
. "$(dirname "$0")/net-vlan.sh"
