/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads a policy file with libconfig, and logs the first mistake with its line. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libconfig.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/policy-file.h"
#include "common/text.h"
#include "limits/descriptor-limit.h"
#include "log/log.h"

/* In bytes: far more than a person writes by hand. */
#define FILE_MAX (1 << 20)

/* In bytes: enough for getpwnam_r() and getgrnam_r(), also for a group with many members. */
#define NAME_BUFFER (1 << 20)

/* The file that is being read, for messages. */
static const char *file_name;

/* Logs file, line and reason of a mistake in one line. Returns false, for the caller to return. */
static bool __attribute__((format(printf, 2, 3)))
log_mistake(const config_setting_t *setting, const char *format, ...)
{
	char reason[512];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	log_error("%s:%u: %s", file_name, config_setting_source_line(setting), reason);
	return false;
}

/* ------------------------------------------------- values */

/* Hexadecimal numbers are refused: libconfig cuts them to 32 bits silently, 0x1000000000 to 0. */
static bool is_hexadecimal(const config_setting_t *setting)
{
	return config_setting_get_format(setting) == CONFIG_FORMAT_HEX;
}

static bool read_number(const config_setting_t *setting, uint64_t *number)
{
	const char *text = config_setting_get_string(setting);

	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_STRING:
		if (parse_size(text, number))
			return true;
		break;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		*number = (uint64_t)config_setting_get_int64(setting);
		if (config_setting_get_int64(setting) >= 0 && !is_hexadecimal(setting))
			return true;
		break;
	}
	return log_mistake(setting, "%s must be a decimal number, or one with K, M, G or T after "
			   "it in quotes, such as \"64G\"", config_setting_name(setting));
}

static bool read_directions(const config_setting_t *setting, uint32_t *directions)
{
	static const struct {
		const char *name;
		uint32_t directions;
	} words[] = {
		{ "none", 0 },
		{ "read", FUSE_DMABUF_TOKEN_READ },
		{ "write", FUSE_DMABUF_TOKEN_WRITE },
		{ "read-write", TOKEN_BOTH },
	};
	const char *text = config_setting_get_string(setting);

	for (size_t i = 0; text && i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(text, words[i].name)) {
			*directions = words[i].directions;
			return true;
		}
	}
	return log_mistake(setting, "allow must be \"none\", \"read\", \"write\" or "
			   "\"read-write\"");
}

/* ------------------------------------------------- lists of values */

/*
 * Makes room for one more element after @count elements of @size bytes. Returns the new element, or
 * NULL if out of memory, which is logged.
 */
static void *grow_array(void **array, size_t count, size_t size)
{
	void *grown = realloc(*array, (count + 1) * size);

	if (!grown) {
		log_error("%s: out of memory", file_name);
		return NULL;
	}
	*array = grown;
	return (char *)grown + count * size;
}

/*
 * Calls read_element() with the setting or, if the setting is a list, with each element. Returns
 * false at the first mistake.
 */
static bool read_each(const config_setting_t *setting,
		      bool (*read_element)(const config_setting_t *, void *), void *data)
{
	int count = config_setting_length(setting);

	if (!config_setting_is_list(setting) && !config_setting_is_array(setting))
		return read_element(setting, data);
	if (!count)
		return log_mistake(setting, "the list is empty");
	for (int i = 0; i < count; i++) {
		if (!read_element(config_setting_get_elem(setting, (unsigned int)i), data))
			return false;
	}
	return true;
}

/* Reads a user or group id. Returns false if the setting is not a decimal number or too large. */
static bool read_id(const config_setting_t *setting, uint64_t *id)
{
	const char *text = config_setting_get_string(setting);

	if (!text) {
		*id = (uint64_t)config_setting_get_int64(setting);
		return config_setting_is_number(setting) &&
		       config_setting_type(setting) != CONFIG_TYPE_FLOAT &&
		       !is_hexadecimal(setting) && *id < UINT32_MAX;
	}
	return text[strspn(text, "0123456789")] == '\0' && parse_size(text, id) && *id < UINT32_MAX;
}

static bool find_user(const char *name, uint64_t *id)
{
	struct passwd entry, *found = NULL;
	char *buffer = malloc(NAME_BUFFER);

	if (buffer && !getpwnam_r(name, &entry, buffer, NAME_BUFFER, &found) && found)
		*id = found->pw_uid;
	free(buffer);
	return found;
}

static bool find_group(const char *name, uint64_t *id)
{
	struct group entry, *found = NULL;
	char *buffer = malloc(NAME_BUFFER);

	if (buffer && !getgrnam_r(name, &entry, buffer, NAME_BUFFER, &found) && found)
		*id = found->gr_gid;
	free(buffer);
	return found;
}

static bool read_user(const config_setting_t *setting, void *data)
{
	struct policy_who *who = data;
	const char *name = config_setting_get_string(setting);
	uint64_t id;
	uid_t *user;

	if (!(name && find_user(name, &id)) && !read_id(setting, &id))
		return log_mistake(setting, name ? "there is no user \"%s\"" :
				   "user must be a name or a decimal number", name);
	user = grow_array((void **)&who->users, who->user_count, sizeof(*user));
	if (!user)
		return false;
	*user = (uid_t)id;
	who->user_count++;
	return true;
}

static bool read_group(const config_setting_t *setting, void *data)
{
	struct policy_who *who = data;
	const char *name = config_setting_get_string(setting);
	uint64_t id;
	gid_t *group;

	if (!(name && find_group(name, &id)) && !read_id(setting, &id))
		return log_mistake(setting, name ? "there is no group \"%s\"" :
				   "group must be a name or a decimal number", name);
	group = grow_array((void **)&who->groups, who->group_count, sizeof(*group));
	if (!group)
		return false;
	*group = (gid_t)id;
	who->group_count++;
	return true;
}

static bool read_path(const config_setting_t *setting, void *data)
{
	struct policy_rule *rule = data;
	const char *text = config_setting_get_string(setting);
	char **path;

	if (!text || *text != '/')
		return log_mistake(setting, "path must be a pattern that begins with /, "
				   "the root of the mount");
	path = grow_array((void **)&rule->paths, rule->path_count, sizeof(*path));
	if (!path)
		return false;
	*path = strdup(text);
	if (!*path) {
		log_error("%s: out of memory", file_name);
		return false;
	}
	rule->path_count++;
	return true;
}

/* ------------------------------------------------- groups of settings */

static bool log_unknown_setting(const config_setting_t *setting)
{
	return log_mistake(setting, "unknown setting \"%s\"", config_setting_name(setting));
}

static bool read_rule_setting(const config_setting_t *setting, struct policy_rule *rule)
{
	const char *name = config_setting_name(setting);

	if (!strcmp(name, "user"))
		return read_each(setting, read_user, &rule->who);
	if (!strcmp(name, "group"))
		return read_each(setting, read_group, &rule->who);
	if (!strcmp(name, "path"))
		return read_each(setting, read_path, rule);
	if (!strcmp(name, "allow"))
		return read_directions(setting, &rule->directions);
	return log_unknown_setting(setting);
}

static bool read_rule(const config_setting_t *setting, void *data)
{
	struct policy *policy = data;
	struct policy_rule *rule = grow_array((void **)&policy->rules, policy->rule_count,
					      sizeof(*rule));

	if (!rule)
		return false;
	*rule = (struct policy_rule){ 0 };
	policy->rule_count++;
	if (!config_setting_is_group(setting) || !config_setting_get_member(setting, "allow"))
		return log_mistake(setting, "a rule must be like { group = \"video\"; "
				   "path = \"/models\"; allow = \"read\"; } and have allow");
	for (int i = 0; i < config_setting_length(setting); i++) {
		if (!read_rule_setting(config_setting_get_elem(setting, (unsigned int)i), rule))
			return false;
	}
	return true;
}

static bool read_quota_setting(const config_setting_t *setting, struct policy_quota *quota)
{
	const char *name = config_setting_name(setting);

	if (!strcmp(name, "user"))
		return read_each(setting, read_user, &quota->who);
	if (!strcmp(name, "group"))
		return read_each(setting, read_group, &quota->who);
	if (!strcmp(name, "max_bytes"))
		return read_number(setting, &quota->limit.bytes);
	if (!strcmp(name, "max_tokens"))
		return read_number(setting, &quota->limit.tokens);
	return log_unknown_setting(setting);
}

/* A limit that the quota does not set is unlimited. */
static bool read_quota(const config_setting_t *setting, void *data)
{
	struct policy *policy = data;
	struct policy_quota *quota = grow_array((void **)&policy->quotas, policy->quota_count,
						sizeof(*quota));

	if (!quota)
		return false;
	*quota = (struct policy_quota){ .limit = { UINT64_MAX, UINT64_MAX } };
	policy->quota_count++;
	if (!config_setting_is_group(setting))
		return log_mistake(setting, "a quota must be like "
				   "{ user = \"alice\"; max_bytes = \"64G\"; }");
	for (int i = 0; i < config_setting_length(setting); i++) {
		if (!read_quota_setting(config_setting_get_elem(setting, (unsigned int)i), quota))
			return false;
	}
	return true;
}

static bool read_list(const config_setting_t *setting,
		      bool (*read_element)(const config_setting_t *, void *), struct policy *policy)
{
	if (!config_setting_is_list(setting))
		return log_mistake(setting, "%s must be a list: ( { ... }, { ... } )",
				   config_setting_name(setting));
	return read_each(setting, read_element, policy);
}

static bool read_setting(const config_setting_t *setting, struct policy *policy)
{
	const char *name = config_setting_name(setting);

	if (!strcmp(name, "rules"))
		return read_list(setting, read_rule, policy);
	if (!strcmp(name, "quotas"))
		return read_list(setting, read_quota, policy);
	if (!strcmp(name, "max_bytes"))
		return read_number(setting, &policy->all.bytes);
	if (!strcmp(name, "max_tokens"))
		return read_number(setting, &policy->all.tokens);
	if (!strcmp(name, "user_max_bytes"))
		return read_number(setting, &policy->user.bytes);
	if (!strcmp(name, "user_max_tokens"))
		return read_number(setting, &policy->user.tokens);
	return log_unknown_setting(setting);
}

/* ------------------------------------------------- the file */

/*
 * Reads the whole file. Returns NULL with errno set if that fails; the caller frees the text.
 * libconfig does not read the file because it would end the program on a read error, as of a
 * directory.
 */
static char *read_text(int fd)
{
	char *text = malloc(FILE_MAX + 1);
	ssize_t got, length = 0;

	if (!text)
		return NULL;
	while ((got = read(fd, text + length, FILE_MAX + 1 - (size_t)length)) > 0)
		length += got;
	if (got < 0 || length > FILE_MAX || memchr(text, '\0', (size_t)length)) {
		errno = got < 0 ? errno : length > FILE_MAX ? EFBIG : EILSEQ;
		free(text);
		return NULL;
	}
	text[length] = '\0';
	return text;
}

/*
 * Returns false with errno set if the file is not a regular one. A pipe without a writer would read
 * as an empty policy, which forbids nothing.
 */
static bool is_regular(int fd)
{
	struct stat attr;

	if (fstat(fd, &attr))
		return false;
	errno = S_ISDIR(attr.st_mode) ? EISDIR : EINVAL;
	return S_ISREG(attr.st_mode);
}

/* Returns the text of the file, for free(), or NULL: the log has the reason. */
static char *open_and_read(const char *file)
{
	char *text;
	int fd;

	do {
		fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	} while (fd < 0 && may_open_again());
	text = fd < 0 || !is_regular(fd) ? NULL : read_text(fd);
	if (!text)
		log_error("%s: %s", file, strerror(errno));
	if (fd >= 0)
		close(fd);
	return text;
}

/* Refuses @include: the policy is written in one file, and nothing outside that file counts. */
static const char **refuse_include(config_t *config, const char *directory, const char *path,
				   const char **error)
{
	(void)config;
	(void)directory;
	(void)path;
	*error = "@include is not possible here";
	return NULL;
}

static bool read_config(config_t *config, const char *text, struct policy *policy)
{
	const config_setting_t *root;

	config_set_include_func(config, refuse_include);
	if (!config_read_string(config, text)) {
		log_error("%s:%d: %s", file_name, config_error_line(config),
			  config_error_text(config));
		return false;
	}
	root = config_root_setting(config);
	for (int i = 0; i < config_setting_length(root); i++) {
		if (!read_setting(config_setting_get_elem(root, (unsigned int)i), policy))
			return false;
	}
	return true;
}

struct policy *policy_file_read(const char *file, const struct policy *defaults)
{
	struct policy *policy = malloc(sizeof(*policy));
	char *text = policy ? open_and_read(file) : NULL;
	config_t config;
	bool valid;

	if (!policy)
		log_error("%s: out of memory", file);
	if (!text) {
		free(policy);
		return NULL;
	}
	*policy = *defaults;
	file_name = file;
	config_init(&config);
	valid = read_config(&config, text, policy);
	config_destroy(&config);
	free(text);
	if (valid)
		return policy;
	policy_free(policy);
	return NULL;
}
