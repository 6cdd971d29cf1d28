// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a function of the kernel return another value, or return late. For tests
 * that could not cause that otherwise, or could not hit the moment. The function
 * itself still runs.
 *
 * The parameter "symbol" names the function, or is empty for none. The other
 * parameters say what to do with the function, and must be set before.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ptrace.h>
#include <linux/string.h>

static DEFINE_MUTEX(override_lock);
static struct kretprobe probe;
static char name[64];
static atomic_t hits;

static bool replace;
static long replacement;

static unsigned int count;
module_param(count, uint, 0600);
MODULE_PARM_DESC(count, "do it to so many returns and leave the later ones alone; 0: do it to all");

static unsigned int delay_ms;
module_param(delay_ms, uint, 0600);
MODULE_PARM_DESC(delay_ms, "hold each return back so long, or until this is 0");

/* Waits without sleeping, because the caller of the function may not be allowed to sleep. */
static void hold_back(void)
{
	for (unsigned int ms = 0; ms < READ_ONCE(delay_ms); ms++)
		mdelay(1);
}

static int on_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	int hit = atomic_inc_return(&hits);

	if (count && hit > count)
		return 0;
	hold_back();
	if (replace)
		regs_set_return_value(regs, replacement);
	return 0;
}

static void release_symbol(void)
{
	if (!*name)
		return;
	unregister_kretprobe(&probe);
	*name = '\0';
}

static int set_symbol(const char *value, const struct kernel_param *param)
{
	int error = 0;

	mutex_lock(&override_lock);
	release_symbol();
	if (strscpy(name, value, sizeof(name)) < 0) {
		error = -EINVAL;
	} else if (*strstrip(name)) {
		atomic_set(&hits, 0);
		probe = (struct kretprobe) {
			.kp.symbol_name = strstrip(name),
			.handler = on_return,
		};
		error = register_kretprobe(&probe);
	}
	if (error)
		*name = '\0';
	mutex_unlock(&override_lock);
	return error;
}

static int get_symbol(char *buffer, const struct kernel_param *param)
{
	int len;

	mutex_lock(&override_lock);
	len = sysfs_emit(buffer, "%s\n", name);
	mutex_unlock(&override_lock);
	return len;
}

static const struct kernel_param_ops symbol_param = {
	.set = set_symbol,
	.get = get_symbol,
};
module_param_cb(symbol, &symbol_param, NULL, 0600);
MODULE_PARM_DESC(symbol, "the function, such as ext4_iomap_begin");

static int set_value(const char *value, const struct kernel_param *param)
{
	int error = 0;

	mutex_lock(&override_lock);
	replace = *skip_spaces(value);
	if (replace)
		error = kstrtol(value, 0, &replacement);
	mutex_unlock(&override_lock);
	return error;
}

static const struct kernel_param_ops value_param = {
	.set = set_value,
};
module_param_cb(value, &value_param, NULL, 0200);
MODULE_PARM_DESC(value, "what it returns, or nothing to leave that alone");

static int get_hits(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&hits));
}

static const struct kernel_param_ops hits_param = {
	.get = get_hits,
};
module_param_cb(hits, &hits_param, NULL, 0400);
MODULE_PARM_DESC(hits, "how often it has returned, counted before it is held back");

static void __exit override_exit(void)
{
	release_symbol();
}

static int __init override_init(void)
{
	return 0;
}

module_init(override_init);
module_exit(override_exit);

MODULE_DESCRIPTION("makes a function of the kernel return something else, for tests");
MODULE_LICENSE("GPL");
