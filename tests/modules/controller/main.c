// SPDX-License-Identifier: GPL-2.0-only
/* Adds and removes the controller when the parameter "registers" of the module is set. */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "controller.h"

/* Polls without a command after which the thread polls less often. */
#define BUSY_LOOKS	1000

bool takes_sgls = true;

static DEFINE_MUTEX(controller_lock);
static struct controller *controller;

static int look_again_and_again(void *data)
{
	unsigned int idle = 0;

	while (!kthread_should_stop()) {
		idle = queues_look(data) ? 0 : min(idle + 1, BUSY_LOOKS);
		if (idle < BUSY_LOOKS)
			usleep_range(20, 40);
		else
			msleep(20);
	}
	return 0;
}

static bool is_left_alone(unsigned long address)
{
	return PAGE_ALIGNED(address) && region_intersects(address, BAR_SIZE, IORESOURCE_SYSTEM_RAM,
					    IORES_DESC_NONE) == REGION_DISJOINT;
}

static int controller_start(struct controller *new, unsigned long address)
{
	/* Queues contiguous, doorbell stride 0, timeout 20 times 500 ms, NVM command set. */
	u64 capabilities = (QUEUE_ENTRIES - 1) | 1ull << 16 | 20ull << 24 |
			   (u64)NVME_CAP_CSS_NVM << 37;
	int error;

	for (unsigned int i = 0; i < BAR_SIZE; i += 4)
		writel(0, new->registers + i);
	writeq(capabilities, new->registers + NVME_REG_CAP);
	writel(NVME_VS(1, 2, 0), new->registers + NVME_REG_VS);

	new->thread = kthread_run(look_again_and_again, new, "nvme_test");
	if (IS_ERR(new->thread))
		return PTR_ERR(new->thread);
	error = bus_add(new, address);
	if (error)
		kthread_stop(new->thread);
	return error;
}

static void controller_free(struct controller *old)
{
	if (old->registers)
		iounmap(old->registers);
	vfree(old->disk);
	kfree(old);
}

static int controller_add(unsigned long address)
{
	struct controller *new;
	int error = -ENOMEM;

	if (!is_left_alone(address))
		return -ENXIO;
	new = kzalloc_obj(*new);
	if (!new)
		return -ENOMEM;
	new->disk = vzalloc(DISK_SIZE);
	new->registers = ioremap(address, BAR_SIZE);
	if (new->disk && new->registers)
		error = controller_start(new, address);
	if (error)
		controller_free(new);
	else
		controller = new;
	return error;
}

static void controller_remove(void)
{
	bus_remove(controller);
	kthread_stop(controller->thread);
	controller_free(controller);
	controller = NULL;
}

static int registers_set(const char *value, const struct kernel_param *param)
{
	unsigned long address;
	int error = kstrtoul(value, 0, &address);

	if (error)
		return error;
	mutex_lock(&controller_lock);
	if (controller)
		controller_remove();
	if (address)
		error = controller_add(address);
	mutex_unlock(&controller_lock);
	return error;
}

static int registers_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%#llx\n", controller ? controller->window.start : 0);
}

static const struct kernel_param_ops registers_ops = {
	.set = registers_set,
	.get = registers_get,
};
module_param_cb(registers, &registers_ops, NULL, 0600);
MODULE_PARM_DESC(registers,
		 "where the controller is, in 8 KiB that the kernel was told to leave alone; "
		 "0: none");

module_param_named(sgls, takes_sgls, bool, 0600);
MODULE_PARM_DESC(sgls, "whether the next controller takes SGLs, or PRPs only");

static void __exit nvme_test_exit(void)
{
	if (controller)
		controller_remove();
}

/* Without an init function this module could not be unloaded. */
static int __init nvme_test_init(void)
{
	return 0;
}

module_init(nvme_test_init);
module_exit(nvme_test_exit);

MODULE_DESCRIPTION("NVMe controller in software, for tests of large commands");
MODULE_LICENSE("GPL");
