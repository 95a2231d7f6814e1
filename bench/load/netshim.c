/* netshim: a wire between two interfaces that delays every frame and loses some IPv4 ones.
 *
 * netshim IFA IFB DELAY_US LOSS_PERCENT [SEED]
 *
 * Delay is one way, loss each way. Between virtual interfaces a frame may still lack its checksum, or be a batch that
 * a card would cut up: the header of virtio-net (PACKET_VNET_HDR) tells, and goes along. Such a batch is lost as one.
 * Counts are printed when it is told to end (SIGTERM).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { QUEUE = 4096, FRAME_MAX = 66 << 10, BATCH = 64, BUFFER = 8 << 20 };
enum { HEADER = sizeof(struct virtio_net_hdr), TYPE = HEADER + 12 /* of the Ethernet header */ };

typedef struct {
  double due;
  int size;
  unsigned char raw[FRAME_MAX];
} Frame;

typedef struct { /* what came in by one interface and is to go out by the other: a ring */
  int in, out;
  int first, free;
  Frame *frames;
} Direction;

static long forwarded, lost, overflowed;
static volatile sig_atomic_t told_to_end;

static void on_signal(int number) {
  (void)number;
  told_to_end = 1;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static int attach(const char *interface) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL)), one = 1, size = BUFFER;
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex(interface)};
  struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
  if (fd < 0 || !address.sll_ifindex || bind(fd, (void *)&address, sizeof address) ||
      setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) ||
      setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) ||
      setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all)) {
    perror(interface);
    exit(2);
  }
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  return fd;
}

/* One frame from the interface into the ring; 0 when there was none. ARP and IPv6 housekeeping is never lost. */
static int take(Direction *d, double delay, double loss) {
  int next = (d->free + 1) % QUEUE;
  Frame *frame = &d->frames[d->free];
  int size = recv(d->in, frame->raw, FRAME_MAX, MSG_TRUNC);
  if (size <= 0) return 0;
  int ipv4 = size >= HEADER + ETH_HLEN && frame->raw[TYPE] == 8 && frame->raw[TYPE + 1] == 0;
  if (size > FRAME_MAX || next == d->first) {
    overflowed++;
  } else if (ipv4 && drand48() < loss) {
    lost++;
  } else {
    frame->size = size;
    frame->due = now() + delay;
    d->free = next;
  }
  return 1;
}

static void give(Direction *d) {
  for (double t = now(); d->first != d->free && d->frames[d->first].due <= t; d->first = (d->first + 1) % QUEUE) {
    Frame *frame = &d->frames[d->first];
    if (send(d->out, frame->raw, frame->size, 0) < 0)
      overflowed++;
    else
      forwarded++;
  }
}

static double wait_for(const Direction *d, double most) {
  if (d->first == d->free) return most;
  double left = d->frames[d->first].due - now();
  return left < 0 ? 0 : left < most ? left : most;
}

int main(int argc, char **argv) {
  if (argc < 5) {
    fprintf(stderr, "usage: netshim IFA IFB DELAY_US LOSS_PERCENT [SEED]\n");
    return 2;
  }
  double delay = atof(argv[3]) * 1e-6, loss = atof(argv[4]) / 100;
  srand48(argc > 5 ? atol(argv[5]) : 1);
  signal(SIGTERM, on_signal);
  int a = attach(argv[1]), b = attach(argv[2]);
  Direction ways[2] = {{.in = a, .out = b}, {.in = b, .out = a}};
  for (int i = 0; i < 2; i++) ways[i].frames = malloc(sizeof(Frame) * QUEUE);
  while (!told_to_end) {
    double wait = wait_for(&ways[0], wait_for(&ways[1], 0.1));
    struct pollfd ready[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    ppoll(ready, 2, &(struct timespec){0, (long)(wait * 1e9)}, NULL);
    for (int i = 0; i < 2; i++) {
      for (int k = 0; k < BATCH && take(&ways[i], delay, loss); k++) continue;
      give(&ways[i]);
    }
  }
  printf("{\"forwarded\": %ld, \"lost\": %ld, \"overflowed\": %ld}\n", forwarded, lost, overflowed);
  return 0;
}
