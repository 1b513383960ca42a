/* The port of a wrist that runs inside a test: every function of emb_port.h is Python's. */
#include "emb_port.h"
#include "emb_wrist.h"
#include <string.h>
uint64_t (*port_now)(void);
int (*port_sample)(int16_t *, emb_sample_stamp *);
size_t (*port_write)(const uint8_t *, size_t);
size_t (*port_read)(uint8_t *, size_t);
unsigned port_fed;
uint64_t emb_port_now_us(void) { return port_now(); }
emb_sample_result emb_port_sample(int16_t *x, emb_sample_stamp *stamp) {
    return (emb_sample_result)port_sample(x, stamp);
}
size_t emb_port_write(const uint8_t *data, size_t n) { return port_write(data, n); }
size_t emb_port_read(uint8_t *data, size_t n) { return port_read(data, n); }
void emb_port_feed_watchdog(void) { port_fed++; }
static emb_wrist wrist;
static int16_t samples[4096];
static uint32_t times[255];
static uint8_t frame[8244], transmit[65536], receive[EMB_WRIST_RECEIVE_BYTES];
bool start(uint8_t n_ch, uint8_t per_frame, bool datagram, size_t frame_size, size_t ring) {
    emb_wrist_config config;
    memset(&config, 0, sizeof config);
    config.info.n_ch = n_ch;
    config.info.bits = 16;
    config.info.samples_per_frame = per_frame;
    config.info.encodings = 7;
    config.info.boot_id = 77;
    config.info.rate_hz = 2048;
    config.info.scale = 0.25;
    memcpy(config.info.unit, "uV", 2);
    memcpy(config.info.firmware, "0123456789abcdef", 16);
    config.reset_cause = EMB_RESET_POWER;
    config.battery_percent = 100;
    config.datagram = datagram;
    config.samples_capacity = (uint8_t)(4096 / n_ch < 255 ? 4096 / n_ch : 255);
    config.samples = samples;
    config.sample_times = times;
    config.frame = frame;
    config.frame_size = frame_size;
    config.transmit = transmit;
    config.transmit_size = ring;
    config.receive = receive;
    return emb_wrist_init(&wrist, &config);
}
void step(void) { while (emb_wrist_poll(&wrist)) {} }
void hang_up(void) { emb_wrist_hang_up(&wrist); }
void set_link(uint32_t interval_us, uint16_t mtu, uint16_t octets, uint8_t phy) {
    const emb_link parameters = {interval_us, mtu, octets, phy};
    emb_wrist_set_link(&wrist, &parameters);
}
