// SPDX-License-Identifier: GPL-2.0-only
/* Walks the two kinds of lists that say where the data of a command is: PRPs and SGLs. */
#include <linux/io.h>
#include <linux/minmax.h>
#include <linux/string.h>

#include "controller.h"

#define LIST_ENTRIES	(PAGE_BYTES / sizeof(__le64))

struct transfer {
	u8 *data;
	size_t left;
	bool to_host;
};

static void copy_piece(struct transfer *transfer, u64 address, size_t length)
{
	length = min(length, transfer->left);
	if (transfer->to_host)
		memcpy(phys_to_virt(address), transfer->data, length);
	else
		memcpy(transfer->data, phys_to_virt(address), length);
	transfer->data += length;
	transfer->left -= length;
}

/* The last entry of a list page points to the next list page if over one page of data is left. */
static void walk_prp_list(struct transfer *transfer, u64 address)
{
	unsigned int index = (address % PAGE_BYTES) / sizeof(__le64);
	__le64 *list = phys_to_virt(address - address % PAGE_BYTES);

	while (transfer->left) {
		if (index == LIST_ENTRIES - 1 && transfer->left > PAGE_BYTES) {
			list = phys_to_virt(le64_to_cpu(list[index]));
			index = 0;
		}
		copy_piece(transfer, le64_to_cpu(list[index++]), PAGE_BYTES);
	}
}

static u16 walk_prps(struct transfer *transfer, struct nvme_command *command)
{
	u64 first = le64_to_cpu(command->common.dptr.prp1);
	u64 second = le64_to_cpu(command->common.dptr.prp2);

	copy_piece(transfer, first, PAGE_BYTES - first % PAGE_BYTES);
	if (transfer->left > PAGE_BYTES)
		walk_prp_list(transfer, second);
	else if (transfer->left)
		copy_piece(transfer, second, PAGE_BYTES);
	return NVME_SC_SUCCESS;
}

static u16 walk_sgl(struct transfer *transfer, struct nvme_sgl_desc *first)
{
	struct nvme_sgl_desc *list = first;
	unsigned int count = 1;

	if (first->type == NVME_SGL_FMT_LAST_SEG_DESC << 4) {
		list = phys_to_virt(le64_to_cpu(first->addr));
		count = le32_to_cpu(first->length) / sizeof(*list);
	}
	for (unsigned int i = 0; i < count; i++) {
		if (list[i].type != NVME_SGL_FMT_DATA_DESC << 4)
			return NVME_SC_SGL_INVALID_TYPE | NVME_STATUS_DNR;
		copy_piece(transfer, le64_to_cpu(list[i].addr),
			   le32_to_cpu(list[i].length));
	}
	return transfer->left ? NVME_SC_SGL_INVALID_DATA | NVME_STATUS_DNR :
				NVME_SC_SUCCESS;
}

static u16 walk(struct transfer *transfer, struct nvme_command *command)
{
	if (command->common.flags & NVME_CMD_SGL_ALL)
		return walk_sgl(transfer, &command->common.dptr.sgl);
	return walk_prps(transfer, command);
}

u16 copy_to_host(struct nvme_command *command, u8 *data, size_t length)
{
	struct transfer transfer = { .data = data, .left = length, .to_host = true };

	return walk(&transfer, command);
}

u16 copy_from_host(struct nvme_command *command, u8 *data, size_t length)
{
	struct transfer transfer = { .data = data, .left = length };

	return walk(&transfer, command);
}
