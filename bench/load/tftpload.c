/* tftpload: many TFTP readers in one process (RFC 1350, 2347, 2348, 7440), every block compared with the true file.
 *
 * tftpload -h ADDR -f NAME -c REFERENCE [-p PORT] [-b BLKSIZE] [-w WINDOW] [-n CLIENTS] [-N FILES] [-t RETRY_MS]
 *          [-r TRIES] [-T DEADLINE_S] [-g]
 *
 * CLIENTS transfers run at a time until FILES are done, each from a port of its own. A client that hears nothing for
 * RETRY_MS says its last word again, TRIES times; then the transfer has failed. -g: what was sent as one batch is taken
 * as one (UDP_GRO), so that the kernel does not cut it up on the sender's CPU, which a wire would not do either. Prints one JSON object; exit code 0 if
 * every file came whole.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, DATA = 3, ACK = 4, ERROR = 5, OACK = 6 };
enum { BATCH = 64, DATAGRAM_MAX = 65536, EVENTS = 256, RECEIVE_BUFFER = 4 << 20 };
#define SWEEP_S 0.01
#define SOL_UDP 17  /* linux/udp.h; not in every libc */
#define UDP_GRO 104

typedef struct {
  int fd, asked, connected, tries;
  uint64_t next;        /* block that is due, counted from 1 without rolling over */
  int since;            /* blocks since our last ACK */
  int told;             /* the gap behind `next` has been reported */
  int blksize, window;  /* as negotiated */
  uint64_t bytes;
  double began, moved;
} Transfer;

static struct sockaddr_in server;
static const char *name = "";
static int blksize = 512, window = 1, clients = 1, files = 1, tries_max = 10;
static int grouped;
static double retry_s = 1, deadline_s = 120;
static const unsigned char *reference;
static size_t reference_size;

static char request[600];
static int request_size, poll_fd;
static double *seconds; /* of each complete file */
static int started, done, failed, got_blksize, got_window;
static uint64_t bytes, datagrams, acks, repeated, gaps, retries, bad;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void put(const char *text) {
  request_size += snprintf(request + request_size, sizeof request - request_size, "%s", text) + 1;
}

static void put_option(const char *option, int value) {
  char text[16];
  snprintf(text, sizeof text, "%d", value);
  put(option);
  put(text);
}

static void make_request(void) {
  request[1] = RRQ;
  request_size = 2;
  put(name);
  put("octet");
  if (blksize != 512) put_option("blksize", blksize);
  if (window != 1) put_option("windowsize", window);
}

static void ask(Transfer *x) { sendto(x->fd, request, request_size, 0, (void *)&server, sizeof server); }

static void start(Transfer *x) {
  int size = RECEIVE_BUFFER;
  *x = (Transfer){.next = 1, .blksize = 512, .window = 1};
  x->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  setsockopt(x->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  setsockopt(x->fd, SOL_UDP, UDP_GRO, &grouped, sizeof grouped);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = x};
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, x->fd, &event);
  x->began = x->moved = now();
  started++;
  ask(x);
}

static void acknowledge(Transfer *x) {
  uint16_t block = x->next - 1;
  unsigned char ack[4] = {0, ACK, block >> 8, block & 255};
  x->since = 0;
  acks++;
  send(x->fd, ack, sizeof ack, 0);
}

static void end(Transfer *x, int complete) {
  close(x->fd);
  x->fd = -1;
  if (complete)
    seconds[done++] = now() - x->began;
  else
    failed++;
  if (started < files) start(x);
}

static void take_options(Transfer *x, const char *at, const char *stop) {
  while (at < stop) {
    const char *option = at, *value = option + strnlen(option, stop - at) + 1;
    if (value >= stop || !memchr(value, 0, stop - value)) return;
    if (!strcasecmp(option, "blksize")) x->blksize = atoi(value);
    if (!strcasecmp(option, "windowsize")) x->window = atoi(value);
    at = value + strlen(value) + 1;
  }
}

static int same(const Transfer *x, const unsigned char *payload, int size) {
  uint64_t offset = (x->next - 1) * (uint64_t)x->blksize;
  return offset + size <= reference_size && !memcmp(reference + offset, payload, size);
}

/* 1 when the transfer has ended: what else was received for it belongs to nobody. */
static int take_data(Transfer *x, uint16_t block, const unsigned char *payload, int size) {
  uint16_t ahead = block - (uint16_t)x->next;
  if (ahead == 0) {
    bad += !same(x, payload, size);
    x->next++, x->since++, x->told = x->tries = 0;
    x->bytes += size, bytes += size;
    if (size < x->blksize) {
      acknowledge(x);
      bad += x->bytes != reference_size;
      end(x, 1);
      return 1;
    }
    if (x->since >= x->window) acknowledge(x);
  } else if (ahead >= 32768) { /* behind: our ACK for it may be lost */
    repeated++;
    if (ahead == 65535) acknowledge(x);
  } else { /* RFC 7440: the last good block, once per gap */
    gaps++;
    if (!x->told) acknowledge(x);
    x->told = 1;
  }
  return 0;
}

static int take(Transfer *x, unsigned char *raw, int size, struct sockaddr_in *from) {
  if (size < 4) return 0;
  datagrams++;
  if (!x->connected) connect(x->fd, (void *)from, sizeof *from);
  x->connected = 1;
  switch (raw[1]) {
  case OACK:
    if (x->next > 1) return 0;
    take_options(x, (char *)raw + 2, (char *)raw + size);
    x->asked = 1;
    acknowledge(x);
    return 0;
  case DATA:
    x->asked = 1;
    return take_data(x, raw[2] << 8 | raw[3], raw + 4, size - 4);
  case ERROR:
    if (!failed) fprintf(stderr, "error %d: %.*s\n", raw[3], size - 4, raw + 4);
    end(x, 0);
    return 1;
  }
  return 0;
}

/* The size of the datagrams in a batch, all but the last of them: the kernel tells when it put some together. */
static int segment(struct msghdr *message, int size) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) return *(int *)CMSG_DATA(c);
  return size;
}

static void receive(Transfer *x, double t) {
  static unsigned char raw[BATCH][DATAGRAM_MAX + 1], control[BATCH][CMSG_SPACE(sizeof(int))];
  static struct sockaddr_in from[BATCH];
  static struct iovec part[BATCH];
  static struct mmsghdr message[BATCH];
  int most = x->window == 1 ? 1 : grouped ? 4 : BATCH;
  for (int i = 0; i < most; i++) {
    part[i] = (struct iovec){raw[i], DATAGRAM_MAX};
    message[i].msg_hdr = (struct msghdr){.msg_iov = &part[i], .msg_iovlen = 1, .msg_name = &from[i]};
    message[i].msg_hdr.msg_namelen = sizeof from[i];
    message[i].msg_hdr.msg_control = control[i];
    message[i].msg_hdr.msg_controllen = grouped ? sizeof control[i] : 0;
  }
  int number = recvmmsg(x->fd, message, most, 0, NULL);
  if (number < 0 && errno != EAGAIN) end(x, 0);
  if (number <= 0) return;
  x->moved = t;
  for (int i = 0; i < number; i++) {
    int size = message[i].msg_len, step = segment(&message[i].msg_hdr, size);
    for (int at = 0; at < size; at += step)
      if (take(x, raw[i] + at, size - at < step ? size - at : step, &from[i])) return;
  }
  if (x->asked) got_blksize = x->blksize, got_window = x->window;
}

static void remind(Transfer *x, double t) {
  if (x->fd < 0 || t - x->moved <= retry_s) return;
  x->moved = t;
  x->told = 0;
  retries++;
  if (++x->tries > tries_max)
    end(x, 0);
  else if (x->asked)
    acknowledge(x);
  else
    ask(x);
}

static int by_value(const void *a, const void *b) {
  double difference = *(const double *)a - *(const double *)b;
  return (difference > 0) - (difference < 0);
}

static void report(double wall) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  qsort(seconds, done, sizeof *seconds, by_value);
  printf("{\"done\": %d, \"failed\": %d, \"unfinished\": %d, \"bad\": %lu, \"bytes\": %lu, \"seconds\": %.5f, ", done, failed,
         files - done - failed, bad, bytes, wall);
  printf("\"blksize\": %d, \"windowsize\": %d, \"cpu\": %.4f, ", got_blksize, got_window, cpu);
  printf("\"datagrams\": %lu, \"acks\": %lu, \"repeated\": %lu, \"gaps\": %lu, \"retries\": %lu, ", datagrams, acks, repeated, gaps,
         retries);
  printf("\"p50\": %.4f, \"p99\": %.4f}\n", done ? seconds[done / 2] : 0, done ? seconds[done * 99 / 100] : 0);
}

static void refuse(const char *what) {
  fprintf(stderr, "tftpload: %s\n", what);
  exit(2);
}

static void open_reference(const char *path) {
  struct stat stat;
  int fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &stat)) refuse("cannot read the reference");
  reference_size = stat.st_size;
  reference = mmap(0, reference_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
}

static void options(int argc, char **argv) {
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(69)};
  for (int o; (o = getopt(argc, argv, "h:p:f:c:b:w:n:N:t:r:T:g")) != -1;) switch (o) {
    case 'h': if (!inet_pton(AF_INET, optarg, &server.sin_addr)) refuse("-h takes an IPv4 address"); break;
    case 'p': server.sin_port = htons(atoi(optarg)); break;
    case 'f': name = optarg; break;
    case 'c': open_reference(optarg); break;
    case 'b': blksize = atoi(optarg); break;
    case 'w': window = atoi(optarg); break;
    case 'n': clients = atoi(optarg); break;
    case 'N': files = atoi(optarg); break;
    case 't': retry_s = atoi(optarg) / 1e3; break;
    case 'r': tries_max = atoi(optarg); break;
    case 'T': deadline_s = atof(optarg); break;
    case 'g': grouped = 1; break;
    default: refuse("see the head of tftpload.c");
    }
  if (!reference || !*name || strlen(name) > 400 || clients < 1) refuse("-h, -f and -c are needed");
  if (files < clients) files = clients;
}

int main(int argc, char **argv) {
  options(argc, argv);
  make_request();
  setrlimit(RLIMIT_NOFILE, &(struct rlimit){65536, 65536});
  seconds = calloc(files + 1, sizeof *seconds);
  Transfer *all = calloc(clients, sizeof *all);
  poll_fd = epoll_create1(0);
  double began = now(), swept = began;
  for (int i = 0; i < clients; i++) start(&all[i]);
  while (done + failed < files) {
    struct epoll_event events[EVENTS];
    int number = epoll_wait(poll_fd, events, EVENTS, 20);
    double t = now();
    for (int i = 0; i < number; i++) receive(events[i].data.ptr, t);
    if (t - swept > SWEEP_S) {
      swept = t;
      for (int i = 0; i < clients; i++) remind(&all[i], t);
    }
    if (t - began > deadline_s) break;
  }
  report(now() - began);
  return done < files || bad;
}
