/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a command's status means for the request that it was sent for. */
#include "iscsi.h"

static enum verdict result(int *res, int code)
{
	*res = code;
	return V_DONE;
}

static enum verdict attention(const struct volume *v, int ascq)
{
	switch (ascq) {
	case 0x2a03: /* reservations preempted */
	case 0x2a04: /* reservations released */
	case 0x2a05: /* registrations preempted */
		return v->reserved ? V_LOST : V_AGAIN;
	case 0x2a09: /* capacity data has changed */
	case 0x3f03: /* inquiry data has changed */
	case 0x3f05: /* device identifier changed */
	case 0x3f0e: /* reported LUNs data has changed: another disk may have the number */
		return V_RESYNC;
	}
	return V_AGAIN;
}

enum verdict sense_judge(const struct volume *v, uint16_t op, int status, const struct scsi_task *t, int *res)
{
	const struct scsi_sense *s = &t->sense;

	switch (status) {
	case SCSI_STATUS_GOOD:
	case SCSI_STATUS_CONDITION_MET:
		/* Fewer bytes than were asked for: the rest of the guest's buffer is not what is on the disk. */
		return result(res, op == VH_READ && t->residual_status == SCSI_RESIDUAL_UNDERFLOW && t->residual ? -EIO : 0);
	case SCSI_STATUS_BUSY:
	case SCSI_STATUS_TASK_SET_FULL:
	case SCSI_STATUS_ACA_ACTIVE:
	case SCSI_STATUS_TASK_ABORTED:
		return V_LATER;
	case SCSI_STATUS_RESERVATION_CONFLICT:
		return v->reserved ? V_LOST : result(res, -EBUSY);
	case SCSI_STATUS_CHECK_CONDITION:
		break;
	default: /* cancelled, timed out, an error of the session */
		return V_RESYNC;
	}
	switch ((int)s->key) {
	case SCSI_SENSE_NO_SENSE:
	case SCSI_SENSE_RECOVERED_ERROR:
		return result(res, 0);
	case SCSI_SENSE_UNIT_ATTENTION:
		return attention(v, s->ascq);
	case SCSI_SENSE_NOT_READY:
		/* Becoming ready, formatting, in transition, ...: 0x04xx; those that need a person (0x0402, 0x0403) fail. */
		return s->ascq >> 8 == 4 && s->ascq != 0x0402 && s->ascq != 0x0403 ? V_LATER : result(res, -EIO);
	case SCSI_SENSE_COMMAND_ABORTED:
		return V_LATER;
	case SCSI_SENSE_DATA_PROTECTION:
		return result(res, s->ascq == 0x2707 ? -ENOSPC : -EROFS); /* 0x2707: space allocation failed */
	case SCSI_SENSE_ILLEGAL_REQUEST:
		if (s->ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED)
			return V_RESYNC; /* the LUN is gone, perhaps for a moment */
		if (op == VH_ZERO || op == VH_DISCARD)
			return result(res, -EOPNOTSUPP);
		if (op == VH_FLUSH && s->ascq == SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE && !v->lun.write_cache)
			return result(res, 0);
		return result(res, -EIO);
	}
	return result(res, -EIO);
}
