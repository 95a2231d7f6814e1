/* dhcpload - DISCOVERs of UEFI PXE clients as load for a proxyDHCP server; what came back, as one JSON object.
 *
 *   -i IF     interface; the client's port 68 is bound on it
 *   -n N      MACs, 02:b1 and a number of 32 bits, used in turn; the UUID in option 97 ends with the MAC
 *   -o N      the number of the first one (0)
 *   -w W      closed loop: W DISCOVERs without an answer at any time, for -d seconds
 *   -r R      open loop: R DISCOVERs a second, for -d seconds
 *   -b        burst: one DISCOVER of every MAC as fast as they go, then up to -T seconds of listening
 *
 * An answer counts when it is an OFFER with the request's xid and PXEClient in option 60.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { COOKIE = 236, OPTIONS = 240, UUID_END = OPTIONS + 3 + 4 + 8 + 19, XIDS = 1 << 22 }; /* after 53, 57, 55, 97 */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static int rising(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

static int open_client(const char *interface) {
  int sock = socket(AF_INET, SOCK_DGRAM, 0), one = 1, size = 16 << 20;
  setsockopt(sock, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
  setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, interface, strlen(interface) + 1);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(68)};
  if (bind(sock, (struct sockaddr *)&any, sizeof any)) {
    perror("port 68");
    exit(2);
  }
  return sock;
}

/* As OVMF sends it: options 53, 57, 55, 97, 94, 93, 60, and no more. */
static int discover(unsigned char *p) {
  static const unsigned char options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 57, 2, 5, 0xc0, 55, 6, 1, 3, 43, 60, 66, 67,
                                          97, 17, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
                                          94, 3, 1, 3, 0, 93, 2, 0, 7, 60, 32};
  memset(p, 0, 400);
  p[0] = p[1] = 1;
  p[2] = 6;
  p[10] = 0x80; /* broadcast */
  memcpy(p + COOKIE, options, sizeof options);
  memcpy(p + COOKIE + sizeof options, "PXEClient:Arch:00007:UNDI:003000", 32);
  p[COOKIE + sizeof options + 32] = 255;
  return COOKIE + sizeof options + 33;
}

/* 1 if these bytes are an offer with PXEClient in option 60. The file may come with it or from 4011 later. */
static int offers(const unsigned char *p, int size) {
  int type = 0, pxe = 0;
  for (int at = OPTIONS; at + 1 < size && p[at] != 255;) {
    if (p[at] == 0) {
      at++;
      continue;
    }
    int length = p[at + 1];
    if (at + 2 + length > size) return 0;
    if (p[at] == 53 && length == 1) type = p[at + 2];
    if (p[at] == 60 && length >= 9) pxe = !memcmp(p + at + 2, "PXEClient", 9);
    at += 2 + length;
  }
  return type == 2 && pxe;
}

int main(int argc, char **argv) {
  const char *interface = "eth0";
  int macs = 1000, first = 0, window = 0, burst = 0, option;
  double rate = 0, seconds = 2, patience = 5;
  while ((option = getopt(argc, argv, "i:n:o:w:r:d:bT:")) != -1) switch (option) {
    case 'i': interface = optarg; break;
    case 'n': macs = atoi(optarg); break;
    case 'o': first = atoi(optarg); break;
    case 'w': window = atoi(optarg); break;
    case 'r': rate = atof(optarg); break;
    case 'd': seconds = atof(optarg); break;
    case 'b': burst = 1; break;
    case 'T': patience = atof(optarg); break;
    default: return 2;
    }
  int sock = open_client(interface);
  struct sockaddr_in everyone = {.sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = INADDR_BROADCAST};
  static double sent_at[XIDS], latency[XIDS];
  static unsigned char answered[XIDS], packet[400], answer[1500];
  int length = discover(packet), sent = 0, good = 0, bad = 0, twice = 0, outstanding = 0;
  double begin = now(), last_sent = begin, last_good = begin;
  for (;;) {
    double t = now();
    int may;
    if (burst) {
      if (sent >= macs && (good >= macs || t - last_sent > patience)) break;
      may = macs - sent;
    } else if (rate > 0) {
      if (t - begin > seconds + 1 || (t - begin > seconds && good >= sent)) break;
      may = t - begin > seconds ? 0 : (int)((t - begin) * rate) - sent;
    } else {
      if (t - begin > seconds) break;
      if (outstanding > 0 && t - last_good > 0.2 && t - last_sent > 0.2) outstanding = 0; /* they are lost */
      may = window - outstanding;
    }
    for (int n = 0; n < may && n < 64 && sent < XIDS; n++) {
      uint32_t xid = htonl(sent + 1);
      int mac = first + sent % macs;
      memcpy(packet + 4, &xid, 4);
      unsigned char *address = packet + 28;
      memcpy(address, (unsigned char[]){2, 0xb1, mac >> 24, mac >> 16, mac >> 8, mac}, 6);
      memcpy(packet + UUID_END - 6, address, 6);
      sent_at[sent] = now();
      if (sendto(sock, packet, length, 0, (struct sockaddr *)&everyone, sizeof everyone) < 0) {
        usleep(100);
        break;
      }
      last_sent = sent_at[sent++];
      outstanding++;
    }
    struct pollfd readable = {sock, POLLIN, 0};
    if (poll(&readable, 1, may > 64 ? 0 : 1) <= 0) continue;
    for (int size; (size = recv(sock, answer, sizeof answer, MSG_DONTWAIT)) >= 0;) {
      uint32_t xid;
      if (size < OPTIONS || answer[0] != 2) continue;
      memcpy(&xid, answer + 4, 4);
      int number = (int)ntohl(xid) - 1;
      if (number < 0 || number >= sent) continue;
      if (answered[number]) {
        twice++;
        continue;
      }
      if (!offers(answer, size)) {
        bad++;
        continue;
      }
      last_good = now();
      answered[number] = 1;
      latency[good++] = last_good - sent_at[number];
      outstanding--;
    }
  }
  double took = last_good - begin;
  qsort(latency, good, sizeof *latency, rising);
  printf("{\"sent\": %d, \"offers\": %d, \"lost\": %d, \"bad\": %d, \"twice\": %d, \"seconds\": %.3f, "
         "\"per_second\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
         sent, good, sent - good, bad, twice, took, took > 0 ? good / took : 0, good ? latency[good / 2] * 1e3 : 0,
         good ? latency[(int)(good * .99)] * 1e3 : 0, good ? latency[good - 1] * 1e3 : 0);
  return 0;
}
