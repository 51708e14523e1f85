/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load_server: a server of one thread on a port of the loopback interface. Each request is
 * parsed, looked up in a cache and answered with six allocations and as many frees; the
 * cache holds some hundred KiB. It prints "ready <pid> <port>" and ends with its input.
 */
#include "load_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CACHE_SLOTS 1024
#define MAX_EVENTS 64
#define BUFFER_SIZE (16 * REQUEST_SIZE)

struct client {
	int fd;
	size_t filled;
	char buffer[BUFFER_SIZE];
};

struct request {
	unsigned long number;
	char *path;
	char *headers;
};

static char *cache[CACHE_SLOTS];

static void *must(void *block)
{
	if (!block)
		abort();
	return block;
}

static struct request *request_parse(const char *text)
{
	struct request *r = must(calloc(1, sizeof(*r)));

	r->number = strtoul(text, NULL, 10);
	r->path = must(malloc(48));
	snprintf(r->path, 48, "/articles/%lu", r->number);
	r->headers = must(malloc(512));
	memset(r->headers, 'h', 512);
	return r;
}

static void request_free(struct request *r)
{
	free(r->headers);
	free(r->path);
	free(r);
}

static const char *cache_put(const struct request *r)
{
	char **slot = &cache[r->number * 2654435761UL % CACHE_SLOTS];
	size_t size = 64 + r->number % 512;

	free(*slot);
	*slot = must(malloc(size));
	memset(*slot, 'c', 64);
	return *slot;
}

static int answer(int fd, const char *text)
{
	struct request *r = request_parse(text);
	char *line = must(malloc(128));
	char *reply = must(malloc(REPLY_SIZE));
	ssize_t sent;

	snprintf(line, 128, "%s %.32s %.32s", r->path, cache_put(r), r->headers);
	memset(reply, ' ', REPLY_SIZE);
	memcpy(reply, line, strlen(line));
	sent = send(fd, reply, REPLY_SIZE, MSG_NOSIGNAL);
	free(reply);
	free(line);
	request_free(r);
	return sent == REPLY_SIZE ? 0 : -1;
}

static void client_close(struct client *c)
{
	close(c->fd);
	free(c);
}

static void client_read(struct client *c)
{
	ssize_t got = recv(c->fd, c->buffer + c->filled, sizeof(c->buffer) - c->filled, 0);
	size_t at = 0;

	if (got <= 0) {
		client_close(c);
		return;
	}
	c->filled += (size_t)got;
	for (; c->filled - at >= REQUEST_SIZE; at += REQUEST_SIZE) {
		if (answer(c->fd, c->buffer + at)) {
			client_close(c);
			return;
		}
	}
	memmove(c->buffer, c->buffer + at, c->filled - at);
	c->filled -= at;
}

static void accept_client(int epoll, int listener)
{
	struct client *c = must(calloc(1, sizeof(*c)));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	int on = 1;

	c->fd = accept(listener, NULL, NULL);
	if (c->fd < 0) {
		free(c);
		return;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static int listen_on_loopback(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 64) ||
	    getsockname(fd, (struct sockaddr *)&address, &size))
		return -1;
	printf("ready %d %d\n", (int)getpid(), ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

int main(void)
{
	static char input, door;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int listener = listen_on_loopback();
	struct epoll_event events[MAX_EVENTS] = {{.events = EPOLLIN, .data.ptr = &door}};

	if (listener < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &events[0]))
		return 1;
	events[0].data.ptr = &input;
	epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &events[0]);
	for (;;) {
		int count = epoll_wait(epoll, events, MAX_EVENTS, -1);

		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr == &input)
				return 0;
			if (events[i].data.ptr == &door)
				accept_client(epoll, listener);
			else
				client_read(events[i].data.ptr);
		}
	}
}
