#include "emb_message.h"

#include <string.h>

#include "emb_bytes.h"

size_t emb_put_stream_info(const emb_stream_info *info, uint8_t *out) {
    uint32_t rate_bits = 0;
    uint64_t scale_bits = 0;
    memcpy(&rate_bits, &info->rate_hz, sizeof rate_bits);
    memcpy(&scale_bits, &info->scale, sizeof scale_bits);
    out[0] = EMB_PROTOCOL_VERSION;
    out[1] = info->n_ch;
    out[2] = info->bits;
    out[3] = info->samples_per_frame;
    emb_put32(out + 4, rate_bits);
    emb_put64(out + 8, scale_bits);
    emb_put32(out + 16, info->boot_id);
    out[20] = info->envelope;
    out[21] = info->encodings;
    out[22] = info->encoding;
    out[23] = 0;
    memcpy(out + 24, info->unit, sizeof info->unit);
    memcpy(out + 32, info->firmware, sizeof info->firmware);
    memcpy(out + 48, info->device, sizeof info->device);
    memcpy(out + 64, info->model_sha256, sizeof info->model_sha256);
    return EMB_STREAM_INFO_BYTES;
}

static size_t begin(uint8_t code, uint8_t length, uint8_t *out) {
    out[0] = code;
    out[1] = length;
    return 2u + length;
}

size_t emb_put_status(uint8_t code, const emb_status *status, uint8_t *out) {
    emb_put64(out + 2, status->time_us);
    emb_put32(out + 10, status->frames_sent);
    emb_put32(out + 14, status->frames_dropped);
    emb_put32(out + 18, status->overruns);
    emb_put32(out + 22, status->samples_missed);
    emb_put32(out + 26, status->frames_refused);
    out[30] = status->reset_cause;
    out[31] = status->battery_percent;
    emb_put16(out + 32, 0);
    return begin(code, 32, out);
}

size_t emb_put_pong(uint64_t time_us, const uint8_t nonce[4], uint8_t *out) {
    emb_put64(out + 2, time_us);
    memcpy(out + 10, nonce, 4);
    return begin(EMB_EVENT_PONG, 12, out);
}

size_t emb_put_link(const emb_link *link, uint8_t *out) {
    emb_put32(out + 2, link->interval_us);
    emb_put16(out + 6, link->mtu);
    emb_put16(out + 8, link->octets);
    out[10] = link->phy;
    memset(out + 11, 0, 3);
    return begin(EMB_EVENT_LINK, 12, out);
}

bool emb_get_control(const uint8_t *payload, size_t n, emb_control *control) {
    if (n < 2 || n > EMB_MAX_CONTROL_BYTES || payload[1] != n - 2) return false;
    control->op = payload[0];
    control->length = payload[1];
    control->value = payload + 2;
    switch (control->op) {
    case EMB_OP_START: return control->length == 0 || control->length == 2;
    case EMB_OP_PING: return control->length == 4;
    default: return control->length == 0;
    }
}
