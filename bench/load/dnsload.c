/* DNS load: dnsload SERVER PORT HOSTS SECONDS SOCKETS WINDOW
 *
 * HOSTS has lines "ADDRESS NAME". SOCKETS sockets keep WINDOW A queries each in flight, in batches (sendmmsg). Every answer
 * is checked: number, question, no error, the one address. One line of JSON; exit 1 if an answer was wrong or lost. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define MOST 256

struct name { uint8_t question[260]; int size; uint32_t address; };
struct flight { int name; uint16_t id; int open; };
struct client { int fd; uint16_t next; struct flight flights[MOST]; double heard; };

static struct name *names;
static int count;
static uint64_t sent, right, wrong, lost;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void read_names(const char *path) {
    FILE *file = fopen(path, "r");
    char address[64], text[256];
    if (!file) { perror(path); exit(2); }
    while (fscanf(file, "%63s %255s", address, text) == 2) {
        names = realloc(names, (count + 1) * sizeof *names);
        struct name *n = &names[count++];
        uint8_t *at = n->question;
        for (char *part = strtok(text, "."); part; part = strtok(NULL, ".")) {
            *at++ = strlen(part);
            memcpy(at, part, strlen(part));
            at += strlen(part);
        }
        memcpy(at, "\0\0\1\0\1", 5);
        n->size = at + 5 - n->question;
        n->address = inet_addr(address);
    }
    fclose(file);
    if (!count) { fprintf(stderr, "no names in %s\n", path); exit(2); }
}

/* Put these flights into the air. */
static void ask(struct client *c, int *which, int n) {
    static uint8_t raw[BATCH][300];
    struct mmsghdr msgs[BATCH];
    struct iovec iov[BATCH];
    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < n; i++) {
        struct flight *f = &c->flights[which[i]];
        f->name = random() % count;
        f->id = (c->next++ & 0xff) << 8 | which[i];
        f->open = 1;
        memcpy(raw[i], (uint8_t[]){f->id >> 8, f->id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 12);
        memcpy(raw[i] + 12, names[f->name].question, names[f->name].size);
        iov[i] = (struct iovec){raw[i], 12 + names[f->name].size};
        msgs[i].msg_hdr.msg_iov = &iov[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
    for (int done = 0; done < n;) {
        int k = sendmmsg(c->fd, msgs + done, n - done, 0);
        if (k <= 0) break;
        done += k;
    }
    sent += n;
}

static int good(const uint8_t *p, int size, struct flight *f) {
    struct name *n = &names[f->name];
    int at = 12 + n->size;
    if (size < at + 16 || (p[2] & 0x82) != 0x80 || (p[3] & 15) || p[5] != 1 || p[7] != 1) return 0;
    if (memcmp(p + 12, n->question, n->size)) return 0;
    return !memcmp(p + at + 2, "\0\1\0\1", 4) && !memcmp(p + at + 10, "\0\4", 2) && !memcmp(p + at + 12, &n->address, 4);
}

static void hear(struct client *c, int again) {
    static uint8_t raw[BATCH][1500];
    struct mmsghdr msgs[BATCH];
    struct iovec iov[BATCH];
    int free_[BATCH], n = 0;
    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){raw[i], sizeof raw[i]};
        msgs[i].msg_hdr.msg_iov = &iov[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
    int got = recvmmsg(c->fd, msgs, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        int size = msgs[i].msg_len;
        uint16_t id = size > 1 ? raw[i][0] << 8 | raw[i][1] : 0;
        struct flight *f = &c->flights[id & 255];
        if (size < 12 || !f->open || f->id != id) continue; /* of a flight that was given up */
        if (good(raw[i], size, f)) right++; else wrong++;
        f->open = 0;
        free_[n++] = id & 255;
    }
    if (got > 0) c->heard = now();
    if (n && again) ask(c, free_, n);
}

int main(int argc, char **argv) {
    if (argc != 7) { fprintf(stderr, "usage: dnsload SERVER PORT HOSTS SECONDS SOCKETS WINDOW\n"); return 2; }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])), .sin_addr.s_addr = inet_addr(argv[1])};
    double seconds = atof(argv[4]);
    int sockets = atoi(argv[5]), window = atoi(argv[6]);
    if (window > MOST || sockets < 1 || window < 1) return 2;
    read_names(argv[3]);
    struct client *clients = calloc(sockets, sizeof *clients);
    struct pollfd *polls = calloc(sockets, sizeof *polls);
    double began = now(), end = began + seconds;
    for (int s = 0; s < sockets; s++) {
        struct client *c = &clients[s];
        int large = 4 << 20;
        c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 2; }
        polls[s] = (struct pollfd){c->fd, POLLIN, 0};
        c->heard = now();
        for (int first = 0; first < window; first += BATCH) {
            int which[BATCH], n = 0;
            for (int i = first; i < window && n < BATCH; i++) which[n++] = i;
            ask(c, which, n);
        }
    }
    double t;
    while ((t = now()) < end) {
        poll(polls, sockets, 50);
        for (int s = 0; s < sockets; s++) {
            struct client *c = &clients[s];
            if (polls[s].revents) hear(c, 1);
            else if (t - c->heard > 3) { /* what is silent for so long is lost: once more */
                int which[BATCH], n = 0;
                for (int i = 0; i < window && n < BATCH; i++) if (c->flights[i].open) { lost++; which[n++] = i; }
                c->heard = t;
                ask(c, which, n);
            }
        }
    }
    double took = now() - began;
    uint64_t within = right;
    int open = 1;
    for (double until = now() + 3; open && now() < until;) { /* those still under way */
        poll(polls, sockets, 50);
        for (int s = 0; s < sockets; s++) if (polls[s].revents) hear(&clients[s], 0);
        open = 0;
        for (int s = 0; s < sockets; s++) for (int i = 0; i < window; i++) open += clients[s].flights[i].open;
    }
    for (int s = 0; s < sockets; s++) for (int i = 0; i < window; i++) lost += clients[s].flights[i].open;
    printf("{\"queries\": %lu, \"right\": %lu, \"wrong\": %lu, \"lost\": %lu, \"seconds\": %.3f, \"rate\": %.1f}\n",
           sent, right, wrong, lost, took, within / took);
    return wrong || lost;
}
