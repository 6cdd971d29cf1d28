/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An NVMe controller in software, for tests. The controller of QEMU takes at most
 * 2 MiB in a command; this one takes as much as the driver sends: MDTS is 8 MiB.
 *
 * The kernel's own driver serves the controller and does not know that it is
 * software: the controller is a function on a PCI bus of its own. Its registers
 * are memory that the kernel was told not to use ("memmap=8K$ADDRESS"), and a
 * thread polls them.
 */
#ifndef NVME_TEST_CONTROLLER_H
#define NVME_TEST_CONTROLLER_H

#include <linux/nvme.h>
#include <linux/pci.h>
#include <linux/types.h>

#define BAR_SIZE	(NVME_REG_DBS + 4096ul)
#define BLOCK_SHIFT	9
#define PAGE_BYTES	4096u	/* as CC.MPS says */
#define DISK_SIZE	(32ul << 20)
#define MDTS		11	/* 4 KiB << 11 = 8 MiB, the most that the driver sends */
#define QUEUE_ENTRIES	128
#define QUEUE_IDS	2	/* the admin queue and one I/O queue */

/* A pair of queues in the memory of the host. Only the thread accesses it. */
struct queue {
	struct nvme_command *commands;	/* NULL: no queue */
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

/* main.c: whether controllers take SGLs, and not only PRPs. */
extern bool takes_sgls;

/* bus.c: adds and removes the function, and tells the driver. */
int bus_add(struct controller *controller, phys_addr_t registers);
void bus_remove(struct controller *controller);

/* queues.c: polls registers and queues once. Returns true if there was a command. */
bool queues_look(struct controller *controller);

/* commands.c: executes a command. Returns an NVMe status; @result is for the host. */
u16 admin_command(struct controller *controller, struct nvme_command *command,
		  u32 *result);
u16 io_command(struct controller *controller, struct nvme_command *command);

/*
 * data.c: copies between @data and the memory that the command points to, with
 * either kind of list. Returns an NVMe status.
 */
u16 copy_to_host(struct nvme_command *command, u8 *data, size_t length);
u16 copy_from_host(struct nvme_command *command, u8 *data, size_t length);

#endif
