#include "emb_wrist.h"

#include <string.h>

#include "emb_port.h"

#define DECLARE_US 1000000u  /* between two STREAM_INFO, each with a STATUS */
#define END_AGAIN_US 200000u /* between two END_OF_STREAM */
#define SAMPLES_PER_POLL 64u /* so that the host is heard while the wrist catches up */
#define READ_BYTES 64u

static uint8_t *payload_of(emb_wrist *w) {
    return w->config.frame + w->packed_at + EMB_HEADER_BYTES;
}

/* Queues the frame whose payload stands in its place. */
static bool queue(emb_wrist *w, uint8_t type, uint8_t flags, uint32_t time_us, uint8_t n_samp,
                  size_t payload_bytes) {
    const uint8_t n_ch = n_samp > 0 ? w->config.info.n_ch : 0;
    const emb_frame frame = {type, flags,  w->seq,        w->sample_index, time_us,
                             n_ch, n_samp, payload_bytes, payload_of(w)};
    uint8_t *bytes = w->config.frame + w->packed_at;
    size_t n = emb_pack(&frame, bytes);
    if (!w->config.datagram) {
        n = emb_cobs_encode(bytes, n, w->config.frame);
        bytes = w->config.frame;
        bytes[n++] = 0;
    }
    return emb_transmit_put(&w->transmit, bytes, n, type == EMB_DATA);
}

/* A frame without samples. Without room it is lost: the host asks again, reports are repeated. */
static void queue_other(emb_wrist *w, uint8_t type, size_t payload_bytes) {
    const uint8_t flags = w->streaming ? EMB_FLAG_STREAMING : 0;
    (void)queue(w, type, flags, (uint32_t)emb_port_now_us(), 0, payload_bytes);
}

static void queue_stream_info(emb_wrist *w) {
    queue_other(w, EMB_STREAM_INFO, emb_put_stream_info(&w->config.info, payload_of(w)));
}

static void queue_status(emb_wrist *w, uint8_t code) {
    emb_status status;
    status.time_us = emb_port_now_us();
    status.frames_sent = w->transmit.data_sent;
    status.frames_dropped = w->frames_dropped;
    status.overruns = w->transmit.overruns;
    status.samples_missed = w->samples_missed;
    status.frames_refused = w->frames_refused;
    status.reset_cause = w->config.reset_cause;
    status.battery_percent = w->config.battery_percent;
    queue_other(w, EMB_EVENT, emb_put_status(code, &status, payload_of(w)));
}

static void drop(emb_wrist *w, uint32_t frames) {
    w->frames_dropped += frames;
    w->overrun = w->overrun || frames > 0;
}

/* Payload of the first samples that wait, in their place; 0 when they do not fit a frame. */
static size_t encode(emb_wrist *w, uint8_t n_samp) {
    return emb_encode(w->config.info.encoding, w->config.samples, n_samp, w->config.info.n_ch,
                      payload_of(w), w->packed_max - EMB_OVERHEAD_BYTES);
}

/* Sends or drops one frame: the first n_samp samples that wait, or as many as fit. */
static void emit(emb_wrist *w, uint8_t n_samp) {
    const size_t n_ch = w->config.info.n_ch;
    size_t bytes = 0;
    if (w->streaming) {
        while ((bytes = encode(w, n_samp)) == 0 && n_samp > 1) n_samp /= 2;
    }
    const uint8_t flags = (uint8_t)(w->config.info.encoding | (w->overrun ? EMB_FLAG_OVERRUN : 0));
    if (bytes > 0 && queue(w, EMB_DATA, flags, w->config.sample_times[0], n_samp, bytes)) {
        w->overrun = false;
    } else {
        drop(w, 1);
    }
    w->seq++;
    w->sample_index += n_samp;
    w->filled = (uint8_t)(w->filled - n_samp);
    memmove(w->config.samples, w->config.samples + n_samp * n_ch,
            w->filled * n_ch * sizeof *w->config.samples);
    memmove(w->config.sample_times, w->config.sample_times + n_samp,
            w->filled * sizeof *w->config.sample_times);
}

static void emit_full(emb_wrist *w) {
    while (w->filled >= w->config.info.samples_per_frame) emit(w, w->config.info.samples_per_frame);
}

static void emit_rest(emb_wrist *w) {
    while (w->filled > 0) emit(w, w->filled);
}

/* The newest sample, already in its row, comes after a hole. */
static void skip_missed(emb_wrist *w, uint32_t missed) {
    const size_t n_ch = w->config.info.n_ch;
    const int16_t *newest = w->config.samples + w->filled * n_ch;
    emit_rest(w);
    memmove(w->config.samples, newest, n_ch * sizeof *newest);
    const uint32_t per_frame = w->config.info.samples_per_frame;
    const uint32_t frames = missed / per_frame + (missed % per_frame > 0);
    drop(w, frames);
    w->seq = (uint16_t)(w->seq + frames);
    w->sample_index += missed;
    w->samples_missed += missed;
}

static bool take_samples(emb_wrist *w) {
    if (!w->began || w->ended) return false;
    for (unsigned i = 0; i < SAMPLES_PER_POLL; i++) {
        emit_full(w); /* also after a START that asked for shorter ones */
        emb_sample_stamp stamp = {0, 0};
        int16_t *row = w->config.samples + (size_t)w->filled * w->config.info.n_ch;
        const emb_sample_result result = emb_port_sample(row, &stamp);
        if (result == EMB_SAMPLE_NONE) return i > 0;
        if (result == EMB_SAMPLE_END) {
            emit_rest(w);
            w->ended = true;
            w->report_at_us = emb_port_now_us();
            return true;
        }
        if (stamp.missed > 0) skip_missed(w, stamp.missed);
        w->config.sample_times[w->filled++] = (uint32_t)stamp.time_us;
    }
    return true;
}

static bool offers(const emb_stream_info *info, uint8_t encoding) {
    return encoding < EMB_ENCODINGS && (info->encodings & (1u << encoding)) != 0;
}

/* Sends as the host asks, if that can be. */
static void agree(emb_wrist *w, const uint8_t *value) {
    emb_stream_info *info = &w->config.info;
    const uint8_t encoding = value[0];
    const uint8_t samples = value[1] > 0 ? value[1] : info->samples_per_frame;
    if (!offers(info, encoding) || samples > w->config.samples_capacity) return;
    info->encoding = encoding;
    info->samples_per_frame = samples;
}

static void declare(emb_wrist *w) {
    queue_stream_info(w);
    w->report_at_us = emb_port_now_us() + (w->ended ? 0 : DECLARE_US);
}

static void obey(emb_wrist *w, const emb_control *control) {
    switch (control->op) {
    case EMB_OP_HELLO:
        if (w->has_link) queue_other(w, EMB_EVENT, emb_put_link(&w->link, payload_of(w)));
        declare(w);
        break;
    case EMB_OP_START:
        if (control->length == 2) agree(w, control->value);
        w->streaming = w->began = true;
        declare(w);
        break;
    case EMB_OP_STOP:
        w->streaming = false;
        queue_status(w, EMB_EVENT_STATUS);
        break;
    case EMB_OP_PING:
        queue_other(w, EMB_EVENT, emb_put_pong(emb_port_now_us(), control->value, payload_of(w)));
        break;
    case EMB_OP_STATUS:
        queue_status(w, EMB_EVENT_STATUS);
        break;
#ifdef EMB_TEST_HANG
    case 0x7F:
        for (;;) {
        }
#endif
    default:
        w->frames_refused++;
    }
}

static void receive(emb_wrist *w, const emb_frame *frame) {
    emb_control control;
    if (frame->type == EMB_CONTROL &&
        emb_get_control(frame->payload, frame->payload_bytes, &control)) {
        obey(w, &control);
    } else {
        w->frames_refused++;
    }
}

static void receive_bytes(emb_wrist *w, const uint8_t *bytes, size_t n) {
    emb_frame frame;
    for (size_t i = 0; i < n; i++) {
        const uint32_t corrupt = w->receiver.frames_corrupt;
        if (emb_receiver_push(&w->receiver, bytes[i], &frame)) receive(w, &frame);
        w->frames_refused += w->receiver.frames_corrupt - corrupt;
    }
}

static bool listen(emb_wrist *w) {
    uint8_t bytes[READ_BYTES];
    emb_frame frame;
    if (!w->config.datagram) {
        const size_t n = emb_port_read(bytes, sizeof bytes);
        receive_bytes(w, bytes, n);
        return n > 0;
    }
    const size_t n = emb_port_read(w->config.receive, EMB_WRIST_RECEIVE_BYTES);
    if (n == 0) return false;
    if (emb_unpack(w->config.receive, n, &frame)) {
        receive(w, &frame);
    } else {
        w->frames_refused++;
    }
    return true;
}

/* Once a second what is sent and how it goes; at the end, once all is written, that. */
static void report(emb_wrist *w) {
    const uint64_t now_us = emb_port_now_us();
    if (!w->streaming || now_us < w->report_at_us) return;
    if (!w->ended) {
        queue_stream_info(w);
        queue_status(w, EMB_EVENT_STATUS);
        w->report_at_us = now_us + DECLARE_US;
    } else if (w->transmit.frames == 0) {
        queue_status(w, EMB_EVENT_END);
        w->report_at_us = now_us + END_AGAIN_US;
    }
}

/* Longest frame that fits the buffer, beside what COBS and the delimiter take. */
static size_t longest_frame(const emb_wrist_config *config) {
    const size_t n = config->datagram ? config->frame_size : (config->frame_size - 1) * 254 / 255;
    return n < EMB_MAX_FRAME_BYTES ? n : EMB_MAX_FRAME_BYTES;
}

static bool info_can_be(const emb_wrist_config *config) {
    const emb_stream_info *info = &config->info;
    return info->n_ch > 0 && info->bits >= 1 && info->bits <= 16 && info->samples_per_frame > 0 &&
           info->samples_per_frame <= config->samples_capacity && offers(info, EMB_INT16) &&
           offers(info, info->encoding) && info->encodings < (1u << EMB_ENCODINGS) &&
           2u * config->samples_capacity * info->n_ch <= EMB_MAX_PAYLOAD_BYTES;
}

bool emb_wrist_init(emb_wrist *w, const emb_wrist_config *config) {
    memset(w, 0, sizeof *w);
    w->config = *config;
    const size_t least = EMB_OVERHEAD_BYTES + EMB_STREAM_INFO_BYTES;
    if (config->frame_size < EMB_COBS_BYTES(least) + 1 || !info_can_be(config)) return false;
    w->packed_own = w->packed_max = longest_frame(config);
    w->packed_at = config->datagram ? 0 : EMB_COBS_BYTES(w->packed_own) - w->packed_own;
    if (config->transmit_size < config->frame_size + 2 * EMB_TRANSMIT_RESERVE) return false;
    emb_transmit_init(&w->transmit, config->transmit, config->transmit_size);
    emb_receiver_init(&w->receiver, config->receive, EMB_WRIST_RECEIVE_BYTES);
    return true;
}

bool emb_wrist_poll(emb_wrist *w) {
    emb_port_feed_watchdog();
    bool any = take_samples(w);
    any = listen(w) || any;
    report(w);
    return emb_transmit_write(&w->transmit) || any;
}

void emb_wrist_set_link(emb_wrist *w, const emb_link *link) {
    const size_t room = link->mtu > 3u ? link->mtu - 3u : 0u;
    w->packed_max = room < w->packed_own ? room : w->packed_own;
    if (w->packed_max < EMB_OVERHEAD_BYTES) w->packed_max = EMB_OVERHEAD_BYTES;
    w->link = *link;
    w->has_link = true;
    queue_other(w, EMB_EVENT, emb_put_link(link, payload_of(w)));
}

void emb_wrist_hang_up(emb_wrist *w) {
    w->streaming = false;
    w->has_link = false;
    w->packed_max = w->packed_own;
    drop(w, emb_transmit_clear(&w->transmit));
    emb_receiver_init(&w->receiver, w->config.receive, EMB_WRIST_RECEIVE_BYTES);
}
