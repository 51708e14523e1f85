/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load_client PORT RATE CONNECTIONS: sends RATE requests a second to load_server.
 *
 * Open loop: request i is due at begin + i/RATE whether or not earlier ones were answered,
 * and its latency counts from the moment it was due, not from the moment it could be sent.
 * A server that stalls is charged for all requests that should have been served meanwhile
 * ("coordinated omission" leaves them out; Gil Tene, "How NOT to Measure Latency", and wrk2).
 * Request i goes to connection i % CONNECTIONS and replies keep their order, so when a reply
 * comes in, its request, and with that when it was due, follows from a count.
 *
 * It spins: a client that sleeps measures its own wakeups.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "load_server.h"

#define MAX_CONNECTIONS 64
#define GRACE_NS 1000000000ULL

struct connection {
	int fd;
	uint64_t sent;
	uint64_t answered;
	size_t sent_part;
	size_t read_part;
};

static struct connection connections[MAX_CONNECTIONS];
static unsigned long connection_count;
static double interval_ns;

static int connection_open(struct connection *c, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	return setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Request number @k of connection number @index. */
static uint64_t due_ns(uint64_t begin_ns, size_t index, uint64_t k)
{
	return begin_ns + (uint64_t)((double)(k * connection_count + index) * interval_ns);
}

static void send_due(struct connection *c, size_t index, uint64_t begin_ns, uint64_t now_ns)
{
	char request[REQUEST_SIZE + 1];

	while (due_ns(begin_ns, index, c->sent) <= now_ns) {
		ssize_t put;

		snprintf(request, sizeof(request), "%-*lu", REQUEST_SIZE,
			 (unsigned long)(c->sent * connection_count + index));
		put = send(c->fd, request + c->sent_part, REQUEST_SIZE - c->sent_part,
			   MSG_DONTWAIT | MSG_NOSIGNAL);
		if (put < 0)
			return;
		c->sent_part = (c->sent_part + (size_t)put) % REQUEST_SIZE;
		if (c->sent_part)
			return;
		c->sent++;
	}
}

/* 0, or a negative errno when the server is gone. */
static int read_replies(struct connection *c, size_t index, uint64_t begin_ns,
			struct latency *latency)
{
	char buffer[16 * REPLY_SIZE];
	ssize_t got = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	uint64_t now;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return -ECONNRESET;
	now = load_now_ns();
	c->read_part += (size_t)got;
	for (; c->read_part >= REPLY_SIZE; c->read_part -= REPLY_SIZE)
		latency_add(latency, now - due_ns(begin_ns, index, c->answered++));
	return 0;
}

/* What nobody answered counts with the time that has passed. */
static void count_unanswered(uint64_t begin_ns, uint64_t deadline_ns, struct latency *latency)
{
	uint64_t now = load_now_ns();

	for (size_t i = 0; i < connection_count; i++) {
		for (uint64_t k = connections[i].answered; due_ns(begin_ns, i, k) < deadline_ns;
		     k++)
			latency_add(latency, now - due_ns(begin_ns, i, k));
	}
}

static uint64_t answered(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < connection_count; i++)
		sum += connections[i].answered;
	return sum;
}

static int read_all(uint64_t begin_ns, struct latency *latency)
{
	for (size_t i = 0; i < connection_count; i++) {
		int err = read_replies(&connections[i], i, begin_ns, latency);

		if (err)
			return err;
	}
	return 0;
}

static uint64_t outstanding(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < connection_count; i++)
		sum += connections[i].sent - connections[i].answered;
	return sum;
}

/* Negative errno, or the replies that came in before the deadline. */
static int64_t run(uint64_t begin_ns, uint64_t deadline_ns, struct latency *latency)
{
	uint64_t now = load_now_ns();
	int64_t in_time;
	int err = 0;

	for (; now < deadline_ns && !err; now = load_now_ns()) {
		for (size_t i = 0; i < connection_count; i++)
			send_due(&connections[i], i, begin_ns, now);
		err = read_all(begin_ns, latency);
	}
	in_time = (int64_t)answered();
	while (!err && outstanding() && load_now_ns() < deadline_ns + GRACE_NS)
		err = read_all(begin_ns, latency);
	count_unanswered(begin_ns, deadline_ns, latency);
	return err ? err : in_time;
}

static void connections_close(void)
{
	for (size_t i = 0; i < connection_count; i++)
		close(connections[i].fd);
	memset(connections, 0, sizeof(connections));
}

/* New connections each time: what is still under way from before would be miscounted. */
static int measure(int port, double seconds)
{
	static struct latency latency;
	uint64_t begin, length = (uint64_t)(1e9 * seconds);
	int64_t operations;

	memset(&latency, 0, sizeof(latency));
	for (size_t i = 0; i < connection_count; i++) {
		int err = connection_open(&connections[i], port);

		if (err)
			return err;
	}
	begin = load_now_ns();
	operations = run(begin, begin + length, &latency);
	connections_close();
	if (operations < 0)
		return (int)operations;
	load_answer((uint64_t)operations, length, &latency);
	return 0;
}

int main(int argc, char **argv)
{
	char line[64];
	int port;

	if (argc < 4)
		return 2;
	port = atoi(argv[1]);
	interval_ns = 1e9 / strtod(argv[2], NULL);
	connection_count = strtoul(argv[3], NULL, 10);
	if (!connection_count || connection_count > MAX_CONNECTIONS)
		return 2;
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		int err = measure(port, strtod(line, NULL));

		if (err) {
			fprintf(stderr, "load_client: %s\n", strerror(err < 0 ? -err : err));
			return 1;
		}
	}
	return 0;
}
