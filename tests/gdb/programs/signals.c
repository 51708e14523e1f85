/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handlers: raised, sent, by a timer, by faults, nested, on another stack. */
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "leak.h"

static volatile sig_atomic_t now;
static volatile int zero;
static sigjmp_buf back;

NOINLINE static void deeper(unsigned k)
{
	LEAK(k);
}

static void handle(int signo)
{
	(void)signo;
	LEAK((unsigned)now);
	deeper((unsigned)now + 1);
	now = 0;
}

static void handle_nested(int signo)
{
	char room[600];

	(void)signo;
	leak_sink = room;
	now = 20;
	raise(SIGUSR1);
	LEAK(22);
}

static void handle_and_jump(int signo)
{
	(void)signo;
	LEAK(40);
	siglongjmp(back, 1);
}

/* ud2 has two bytes: go on behind it. */
static void handle_illegal(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	deeper((unsigned)now);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void install(int signo, void (*f)(int), int flags)
{
	struct sigaction a;

	memset(&a, 0, sizeof(a));
	a.sa_handler = f;
	a.sa_flags = flags;
	sigaction(signo, &a, NULL);
}

NOINLINE static void by_raise(void)
{
	now = 1;
	raise(SIGUSR1);
	AFTER();
}

NOINLINE static void by_kill(void)
{
	now = 4;
	kill(getpid(), SIGUSR1);
	while (now)
		;
}

NOINLINE static void by_timer(void)
{
	struct itimerval t = {{0, 0}, {0, 300000}};

	now = 7;
	install(SIGALRM, handle, SA_RESTART);
	setitimer(ITIMER_REAL, &t, NULL);
	while (now)
		pause();
}

NOINLINE static int by_fault(volatile int *p)
{
	if (!sigsetjmp(back, 1))
		return *p;
	LEAK(41);
	return 0;
}

/* Interrupted at their first instructions, before and after a push. */
void illegal_first(void);
void illegal_pushed(void);
__asm__(".text\n"
	".type illegal_first, @function\n"
	"illegal_first:\n"
	"	.cfi_startproc\n"
	"	ud2\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".type illegal_pushed, @function\n"
	"illegal_pushed:\n"
	"	.cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbp, 0\n"
	"	mov $12345, %ebp\n"
	"	ud2\n"
	"	pop %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %rbp\n"
	"	ud2\n"
	"	ret\n"
	"	.cfi_endproc\n");

NOINLINE static void by_illegal(void)
{
	struct sigaction a;

	memset(&a, 0, sizeof(a));
	a.sa_sigaction = handle_illegal;
	a.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigaction(SIGILL, &a, NULL);
	now = 50;
	illegal_first();
	now = 51;
	illegal_pushed();
}

NOINLINE static void on_other_stack(void)
{
	static char room[65536];
	stack_t s = {.ss_sp = room, .ss_size = sizeof(room)};

	sigaltstack(&s, NULL);
	install(SIGUSR2, handle, SA_ONSTACK);
	now = 10;
	raise(SIGUSR2);
	s.ss_sp = (char *)alloca(sizeof(room));
	sigaltstack(&s, NULL);
	now = 13;
	raise(SIGUSR2);
	install(SIGUSR2, handle_nested, SA_ONSTACK);
	raise(SIGUSR2);
}

int main(void)
{
	install(SIGUSR1, handle, 0);
	install(SIGSEGV, handle_and_jump, SA_NODEFER);
	by_raise();
	by_kill();
	by_timer();
	by_illegal();
	by_fault((volatile int *)(long)zero);
	on_other_stack();
	return 0;
}
