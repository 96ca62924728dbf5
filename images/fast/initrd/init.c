/*
 * First program of the guest: loads the few modules that reach the root disk,
 * mounts it and hands over to the real init. A general initramfs costs seconds
 * under emulation; this one costs milliseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MODULE_LIST "/modules.list"
#define ROOT_DIR "/root"
#define ROOT_WAIT_MS 30000
#define ROOT_POLL_MS 2

static char root_device[128] = "/dev/vda";
static char root_type[32] = "ext4";
static char root_init[128] = "/sbin/init";
static unsigned long root_flags = 0;

/* say writes one line to the kernel's log, which reaches every console. */
static void say(const char *format, ...)
{
	char line[512];
	int n = snprintf(line, sizeof line, "<3>agentlab-init: ");
	va_list args;
	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - n, format, args);
	va_end(args);
	if (n >= (int)sizeof line)
		n = sizeof line - 1;
	int fd = open("/dev/kmsg", O_WRONLY);
	if (fd >= 0) {
		if (write(fd, line, n) < 0) { /* no console: nothing is left to tell */ }
		close(fd);
	}
}

/* die ends init, so the kernel panics and panic= on its command line decides. */
static void die(const char *what, const char *name)
{
	say("%s %s: %s", what, name, strerror(errno));
	_exit(1);
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("open module", path);
	if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)
		die("load module", path);
	close(fd);
	unlink(path);
}

static void load_modules(void)
{
	char line[256];
	FILE *list = fopen(MODULE_LIST, "re");
	if (!list)
		die("open", MODULE_LIST);
	while (fgets(line, sizeof line, list)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0])
			load_module(line);
	}
	fclose(list);
	unlink(MODULE_LIST);
}

static void copy_value(char *to, size_t size, const char *from)
{
	if (snprintf(to, size, "%s", from) >= (int)size) {
		errno = ENAMETOOLONG;
		die("read kernel option", from);
	}
}

/* read_cmdline understands root=, rootfstype=, init=, ro and rw. */
static void read_cmdline(void)
{
	char line[4096], *rest = line, *word;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("open", "/proc/cmdline");
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	if (n < 0)
		die("read", "/proc/cmdline");
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	while ((word = strsep(&rest, " "))) {
		if (!strncmp(word, "root=", 5))
			copy_value(root_device, sizeof root_device, word + 5);
		else if (!strncmp(word, "rootfstype=", 11))
			copy_value(root_type, sizeof root_type, word + 11);
		else if (!strncmp(word, "init=", 5))
			copy_value(root_init, sizeof root_init, word + 5);
		else if (!strcmp(word, "ro"))
			root_flags |= MS_RDONLY;
		else if (!strcmp(word, "rw"))
			root_flags &= ~(unsigned long)MS_RDONLY;
	}
}

static void wait_for_root(void)
{
	struct timespec pause = { 0, ROOT_POLL_MS * 1000000L };
	for (int waited = 0; access(root_device, F_OK) != 0; waited += ROOT_POLL_MS) {
		if (waited >= ROOT_WAIT_MS)
			die("wait for root disk", root_device);
		nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	(void)argc;
	mkdir("/dev", 0755);
	mkdir("/proc", 0555);
	mkdir(ROOT_DIR, 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") != 0 && errno != EBUSY)
		die("mount", "/dev");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
		die("mount", "/proc");
	read_cmdline();
	load_modules();
	wait_for_root();
	if (mount(root_device, ROOT_DIR, root_type, root_flags, NULL) != 0)
		die("mount root disk", root_device);
	if (mount("/dev", ROOT_DIR "/dev", NULL, MS_MOVE, NULL) != 0)
		die("move", "/dev");
	if (mount("/proc", ROOT_DIR "/proc", NULL, MS_MOVE, NULL) != 0)
		die("move", "/proc");
	unlink("/init");
	if (chdir(ROOT_DIR) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0)
		die("switch to", ROOT_DIR);
	/* The console opened at start belongs to the emptied root: open it anew. */
	int console = open("/dev/console", O_RDWR | O_NOCTTY);
	if (console >= 0) {
		dup2(console, 0);
		dup2(console, 1);
		dup2(console, 2);
		if (console > 2)
			close(console);
	}
	argv[0] = root_init;
	execv(root_init, argv);
	die("start", root_init);
}
