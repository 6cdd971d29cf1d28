// SPDX-License-Identifier: GPL-2.0-only
/* Polls registers, doorbells and queues: takes commands and completes them, one by one. */
#include <linux/io.h>
#include <linux/irq.h>

#include "controller.h"

static u16 doorbell(struct controller *controller, unsigned int id, bool completions)
{
	return readl(controller->registers + NVME_REG_DBS + (2 * id + completions) * 4);
}

/* The host has set CC.EN: resets all that is left from before. */
static void enable(struct controller *controller)
{
	u32 sizes = readl(controller->registers + NVME_REG_AQA);

	for (unsigned int i = 0; i < 2 * QUEUE_IDS; i++)
		writel(0, controller->registers + NVME_REG_DBS + i * 4);
	memset(controller->queues, 0, sizeof(controller->queues));
	controller->queues[0] = (struct queue) {
		.commands = phys_to_virt(readq(controller->registers + NVME_REG_ASQ)),
		.completions = phys_to_virt(readq(controller->registers + NVME_REG_ACQ)),
		.commands_size = (sizes & 0xfff) + 1,
		.completions_size = (sizes >> 16 & 0xfff) + 1,
		.phase = true,
	};
	controller->enabled = true;
	writel(NVME_CSTS_RDY, controller->registers + NVME_REG_CSTS);
}

static void look_at_configuration(struct controller *controller)
{
	u32 configuration = readl(controller->registers + NVME_REG_CC);
	u32 status = readl(controller->registers + NVME_REG_CSTS);

	if (!(configuration & NVME_CC_ENABLE)) {
		controller->enabled = false;
		if (status)
			writel(0, controller->registers + NVME_REG_CSTS);
	} else if (!controller->enabled) {
		enable(controller);
	}
	if ((configuration & NVME_CC_SHN_MASK) && !(status & NVME_CSTS_SHST_MASK))
		writel(status | NVME_CSTS_SHST_CMPLT,
		       controller->registers + NVME_REG_CSTS);
}

static bool has_room(struct controller *controller, unsigned int id)
{
	struct queue *queue = &controller->queues[id];

	return (queue->tail + 1) % queue->completions_size !=
	       doorbell(controller, id, true);
}

static void post(struct queue *queue, unsigned int id, u16 command_id,
		 u16 status, u32 result)
{
	struct nvme_completion *completion = &queue->completions[queue->tail];

	completion->result.u32 = cpu_to_le32(result);
	completion->sq_head = cpu_to_le16(queue->head);
	completion->sq_id = cpu_to_le16(id);
	completion->command_id = command_id;
	/* The host polls the phase, so all other members must be written before it. */
	smp_store_release(&completion->status, cpu_to_le16(status << 1 | queue->phase));

	queue->tail = (queue->tail + 1) % queue->completions_size;
	if (!queue->tail)
		queue->phase = !queue->phase;
}

static void take_command(struct controller *controller, unsigned int id)
{
	struct queue *queue = &controller->queues[id];
	struct nvme_command command = queue->commands[queue->head];
	u32 result = 0;
	u16 status;

	queue->head = (queue->head + 1) % queue->commands_size;
	/* No events occur, so the request for one is never completed. */
	if (!id && command.common.opcode == nvme_admin_async_event)
		return;
	status = id ? io_command(controller, &command) :
		      admin_command(controller, &command, &result);
	post(queue, id, command.common.command_id, status, result);
}

static bool look_at_queue(struct controller *controller, unsigned int id)
{
	struct queue *queue = &controller->queues[id];
	bool taken = false;

	while (queue->commands && has_room(controller, id) &&
	       queue->head != doorbell(controller, id, false)) {
		dma_rmb();	/* read the command after the doorbell */
		take_command(controller, id);
		taken = true;
	}
	return taken;
}

bool queues_look(struct controller *controller)
{
	bool taken = false;

	look_at_configuration(controller);
	for (unsigned int id = 0; controller->enabled && id < QUEUE_IDS; id++)
		taken |= look_at_queue(controller, id);
	if (taken)
		generic_handle_irq_safe(controller->irq);
	return taken;
}
