/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An NVMe controller in software, because QEMU's takes 2 MiB a command at most,
 * and this one as much as the driver sends: MDTS of 8 MiB. For tests.
 *
 * The driver is the kernel's own and knows nothing of it: the controller is a
 * function on a PCI bus of its own, whose registers are memory that the kernel
 * was told to leave alone ("memmap=8K$ADDRESS"), and which a thread looks at.
 */
#ifndef NVME_TEST_CONTROLLER_H
#define NVME_TEST_CONTROLLER_H

#include <linux/nvme.h>
#include <linux/pci.h>
#include <linux/types.h>

#define BAR_SIZE	(NVME_REG_DBS + 4096ul)
#define BLOCK_SHIFT	9
#define PAGE_BYTES	4096u	/* that CC.MPS says */
#define DISK_SIZE	(32ul << 20)
#define MDTS		11	/* 4 KiB << 11 = 8 MiB, the most that the driver makes */
#define QUEUE_ENTRIES	128
#define QUEUE_IDS	2	/* the administrator's, and one for I/O */

/* A pair of queues in the host's memory. Only the thread looks at it. */
struct queue {
	struct nvme_command *commands;	/* NULL: there is none */
	struct nvme_completion *completions;
	u16 commands_size, completions_size;
	u16 head, tail;
	bool phase;
};

struct controller {
	/* bus.c */
	struct pci_sysdata sysdata;
	struct resource window;
	struct pci_bus *bus;
	u8 config[PCI_CFG_SPACE_SIZE];
	int irq;

	/* main.c */
	void __iomem *registers;
	struct task_struct *thread;
	u8 *disk;

	/* queues.c */
	struct queue queues[QUEUE_IDS];
	bool enabled;
};

/* bus.c: the function appears and vanishes, the driver is told. */
int bus_add(struct controller *controller, phys_addr_t registers);
void bus_remove(struct controller *controller);

/* queues.c: one look at registers and queues; whether there was anything to do. */
bool queues_look(struct controller *controller);

/* commands.c: does what the command says; an NVMe status, and @result for the host. */
u16 admin_command(struct controller *controller, struct nvme_command *command,
		  u32 *result);
u16 io_command(struct controller *controller, struct nvme_command *command);

/*
 * data.c: copies between @data and the memory that the command points to, by
 * whatever kind of list; an NVMe status.
 */
u16 copy_to_host(struct nvme_command *command, u8 *data, size_t length);
u16 copy_from_host(struct nvme_command *command, u8 *data, size_t length);

#endif
