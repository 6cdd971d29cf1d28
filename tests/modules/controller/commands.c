// SPDX-License-Identifier: GPL-2.0-only
/* Executes the commands of the host for a controller with one namespace and one I/O queue. */
#include <linux/slab.h>
#include <linux/string.h>

#include "controller.h"

#define INVALID		(NVME_SC_INVALID_FIELD | NVME_STATUS_DNR)

static u8 *identify_controller(void)
{
	struct nvme_id_ctrl *id = kzalloc_obj(*id);

	if (!id)
		return NULL;
	memset(id->sn, ' ', sizeof(id->sn) + sizeof(id->mn) + sizeof(id->fr));
	memcpy(id->sn, "large", 5);
	memcpy(id->mn, "nvme_test", 9);
	memcpy(id->fr, "1", 1);
	id->mdts = MDTS;
	id->ver = cpu_to_le32(NVME_VS(1, 2, 0));
	id->sqes = 0x66;	/* entries of 64 bytes */
	id->cqes = 0x44;	/* entries of 16 bytes */
	id->nn = cpu_to_le32(1);
	if (takes_sgls)
		id->sgls = cpu_to_le32(NVME_CTRL_SGLS_DWORD_ALIGNED);
	return (u8 *)id;
}

static u8 *identify_namespace(void)
{
	struct nvme_id_ns *id = kzalloc_obj(*id);

	if (!id)
		return NULL;
	id->nsze = cpu_to_le64(DISK_SIZE >> BLOCK_SHIFT);
	id->ncap = id->nsze;
	id->nuse = id->nsze;
	id->lbaf[0].ds = BLOCK_SHIFT;
	return (u8 *)id;
}

static u8 *identify_list(u32 after)
{
	__le32 *list = kzalloc(NVME_IDENTIFY_DATA_SIZE, GFP_KERNEL);

	if (list && after < 1)
		list[0] = cpu_to_le32(1);
	return (u8 *)list;
}

static u16 identify(struct nvme_command *command)
{
	u32 nsid = le32_to_cpu(command->identify.nsid);
	u8 *data;
	u16 status;

	switch (command->identify.cns) {
	case NVME_ID_CNS_CTRL:
		data = identify_controller();
		break;
	case NVME_ID_CNS_NS:
		if (nsid != 1)
			return INVALID;
		data = identify_namespace();
		break;
	case NVME_ID_CNS_NS_ACTIVE_LIST:
		data = identify_list(nsid);
		break;
	default:
		return INVALID;
	}
	if (!data)
		return NVME_SC_INTERNAL;
	status = copy_to_host(command, data, NVME_IDENTIFY_DATA_SIZE);
	kfree(data);
	return status;
}

/* The host creates a completion queue first, then the submission queue that uses it. */
static u16 create_queue(struct controller *controller, struct nvme_command *command)
{
	bool completions = command->common.opcode == nvme_admin_create_cq;
	u16 id = le16_to_cpu(command->create_cq.cqid);
	u16 size = le16_to_cpu(command->create_cq.qsize) + 1;
	void *memory = phys_to_virt(le64_to_cpu(command->create_cq.prp1));
	struct queue *queue = &controller->queues[1];

	if (id != 1 || size > QUEUE_ENTRIES)
		return INVALID;
	if (completions) {
		*queue = (struct queue) {
			.completions = memory,
			.completions_size = size,
			.phase = true,
		};
	} else {
		queue->commands_size = size;
		queue->commands = memory;
	}
	return NVME_SC_SUCCESS;
}

u16 admin_command(struct controller *controller, struct nvme_command *command,
		  u32 *result)
{
	switch (command->common.opcode) {
	case nvme_admin_identify:
		return identify(command);
	case nvme_admin_create_cq:
	case nvme_admin_create_sq:
		return create_queue(controller, command);
	case nvme_admin_delete_sq:
		controller->queues[1].commands = NULL;
		return NVME_SC_SUCCESS;
	case nvme_admin_delete_cq:
	case nvme_admin_abort_cmd:
		return NVME_SC_SUCCESS;
	case nvme_admin_set_features:
		/* For the number of queues, 0 means one of each kind. */
		*result = 0;
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_STATUS_DNR;
	}
}

u16 io_command(struct controller *controller, struct nvme_command *command)
{
	u64 offset = le64_to_cpu(command->rw.slba) << BLOCK_SHIFT;
	u64 length = (le16_to_cpu(command->rw.length) + 1ull) << BLOCK_SHIFT;

	switch (command->common.opcode) {
	case nvme_cmd_flush:
		return NVME_SC_SUCCESS;
	case nvme_cmd_read:
	case nvme_cmd_write:
		break;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_STATUS_DNR;
	}
	if (length > (u64)PAGE_BYTES << MDTS)
		return INVALID;
	if (offset > DISK_SIZE || length > DISK_SIZE - offset)
		return NVME_SC_LBA_RANGE | NVME_STATUS_DNR;
	if (command->common.opcode == nvme_cmd_read)
		return copy_to_host(command, controller->disk + offset, length);
	return copy_from_host(command, controller->disk + offset, length);
}
