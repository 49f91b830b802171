// The CUDA execution model on one CPU thread: the blocks of a launch one after the other, the threads of
// a block as fibers that give way at barriers and shuffles. Kernels are compiled against this in place of
// the CUDA headers. Shared memory is full of NaN when a block begins, and of exactly the size that the
// launch gave. A barrier that only some threads reach is an error, as is a shuffle in a partial warp, and threads
// that wait for each other at different places of the source. What is racy between barriers or blocks shows as a
// difference between the two orders of threads and blocks; where accesses are watched (WATCHED), it is an error.
// EMULATED is defined: a source that has an instruction of a card has a plain form for here.

#pragma once
#define EMULATED 1
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <typeinfo>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SWITCH_BEGINS(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define SWITCH_ENDS(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#define CLEAN(stack, size) ASAN_UNPOISON_MEMORY_REGION(stack, size)
#else
#define SWITCH_BEGINS(save, stack, size) (void)0
#define SWITCH_ENDS(save, stack, size) (void)0
#define CLEAN(stack, size) (void)0
#endif

// Kernels that are watched call accesses.cpp at each access, and tell it where their threads meet.
#ifdef WATCHED
extern "C" {
void watch_block(unsigned x, unsigned y, unsigned z, const void* shared, size_t bytes);
void watch_thread(unsigned thread);
void watch_warp_stopped();
void watch_meeting(unsigned warp);
void watch_barrier();
void watch_order(const void* address, size_t size, bool write, const void* pc);
void watch_shape(const void* address, size_t size, bool write, const void* pc);
}
#define WATCH(call) call
// Its caller is a line of the kernel.
#define CALLED __attribute__((noinline, no_sanitize("thread")))
#define __forceinline__ inline __attribute__((always_inline))
#else
#define WATCH(call) (void)0
#define CALLED
#define __forceinline__ inline
#endif

#define __device__
#define __host__
#define __restrict__ __restrict

struct Dim3 { unsigned x, y, z; };

namespace emulation {

struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    unsigned order;  // of blocks and of the threads of each: 0 forwards, 1 backwards, 2 shuffled
};

// What is known of a kernel without running it.
struct Facts {
    size_t params_bytes;
    unsigned threads;
};

// A type's name as the compiler has it: its length, then the name.
template <class T> const char* name_of() { return typeid(T).name(); }

enum State { READY, AT_BLOCK, AT_WARP, AT_SHUFFLE, DONE };

constexpr size_t STACK = 128 * 1024;

// A copy of 16 bytes that a thread has not waited for yet.
struct Copy {
    void* to;
    const void* from;  // null: zeros
    unsigned group;
    const void* pc;
};

// A place to go on at, of the compiler's own jumps.
using Jump = void*[5];

struct Fiber {
    ucontext_t context;
    Dim3 thread;
    State state;
    Jump jump;
    bool entered;  // waits in a jump: for its next block, or at a barrier
    unsigned warp, lane, shuffles;
    int line;  // of the source, where it waits
    std::vector<Copy> copies;
    unsigned groups;  // of copies, ended
    void* fake_stack;
    char* stack;
};

// What the lanes of a warp leave for each other.
struct alignas(16) Slots {
    unsigned char bytes[32 * 32];
};

struct Block {
    unsigned threads;
    std::vector<Slots> slots;  // [warps, 2]
    Jump scheduler_jump;
    const void* scheduler_stack;
    size_t scheduler_stack_size;
    Dim3 index, size, grid;
    float* shared;
    void (*kernel)(const void*);
    const void* params;
    std::string error;
};

// What a CPU thread runs and runs it with.
struct Work {
    Block block;
    Fiber* current;
    std::string answer;
    std::vector<Fiber> fibers;  // one for each thread of the largest block so far; they stay where they are
};

constexpr unsigned MOST_THREADS = 1024;

// Made at a thread's first launch. Reached without a call: kernels ask for their place all the time.
__attribute__((tls_model("initial-exec"))) inline constinit thread_local Work* work = nullptr;

// A context is entered once; afterwards jumps, which ask the system for nothing, go to and fro. They are the
// compiler's own: the library's would have the sanitizers forget what they know of the stack.
#define UNWATCHED __attribute__((noinline, no_sanitize("address", "undefined")))
// In a function of its own: the compiler wants no jump where it marks a place to jump to.
[[noreturn]] UNWATCHED inline void jump(Jump& to) { __builtin_longjmp(to, 1); }
UNWATCHED inline void leave(Fiber& fiber) {
    if (__builtin_setjmp(fiber.jump) == 0) jump(work->block.scheduler_jump);
}
UNWATCHED inline void enter_or_return(Fiber& fiber) {
    if (__builtin_setjmp(work->block.scheduler_jump) != 0) return;
    if (fiber.entered) jump(fiber.jump);
    fiber.entered = true;
    setcontext(&fiber.context);
}

// Back to the scheduler until it lets this thread go on.
inline void give_way(State state, int line) {
    Fiber* self = work->current;
    self->state = state;
    self->line = line;
    SWITCH_BEGINS(&self->fake_stack, work->block.scheduler_stack, work->block.scheduler_stack_size);
    leave(*self);
    SWITCH_ENDS(self->fake_stack, &work->block.scheduler_stack, &work->block.scheduler_stack_size);
    // What is copied may be written at any time until it is waited for.
    WATCH(for (const Copy& copy : self->copies) watch_order(copy.to, 16, true, copy.pc));
}

inline void enter() {
    SWITCH_ENDS(nullptr, &work->block.scheduler_stack, &work->block.scheduler_stack_size);
    for (;;) {
        work->block.kernel(work->block.params);
        give_way(DONE, 0);
    }
}

inline void resume(Fiber& fiber) {
    work->current = &fiber;
    void* save = nullptr;
    (void)save;
    SWITCH_BEGINS(&save, fiber.stack, STACK);
    enter_or_return(fiber);
    SWITCH_ENDS(save, nullptr, nullptr);
}

// Those of these threads that wait for each other, and whether they go on: all that still run have to.
struct Meeting {
    unsigned waiting = 0, living = 0;
    int line = 0;
    bool same = true;  // place in the source

    void see(const Fiber& fiber, bool waits) {
        living += fiber.state != DONE;
        if (!waits) return;
        same = same && (waiting == 0 || fiber.line == line);
        line = fiber.line;
        waiting++;
    }
    bool full() const { return waiting > 0 && waiting == living; }
};

inline void let_go(Fiber* fibers, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (fibers[i].state != DONE) fibers[i].state = READY;
}

// Lets every thread that waits at a full barrier go on; whether there was one.
inline bool release() {
    bool any = false;
    Fiber* fibers = work->fibers.data();
    const size_t threads = work->block.threads;
    Meeting block;
    for (size_t warp = 0; warp < threads; warp += 32) {
        Meeting lanes;
        unsigned shuffling = 0;
        for (size_t i = warp; i < warp + 32; i++) {
            shuffling += fibers[i].state == AT_SHUFFLE;
            lanes.see(fibers[i], fibers[i].state == AT_WARP || fibers[i].state == AT_SHUFFLE);
            block.see(fibers[i], fibers[i].state == AT_BLOCK);
        }
        if (!lanes.full()) continue;
        if (!lanes.same) work->block.error = "lanes of a warp wait for each other at different places, of which one is line " + std::to_string(lanes.line);
        if (shuffling > 0 && shuffling < 32) work->block.error = "a shuffle in a partial warp, at line " + std::to_string(lanes.line);
        let_go(&fibers[warp], 32);
        WATCH(watch_meeting(warp / 32));
        any = true;
    }
    if (block.full()) {
        if (!block.same) work->block.error = "threads of a block wait for each other at different barriers, of which one is at line " + std::to_string(block.line);
        let_go(fibers, threads);
        WATCH(watch_barrier());
        any = true;
    }
    return any;
}

// Apart from the loop, no variable of which lives across getcontext this way: compilers warn of that.
__attribute__((noinline)) inline void begin(Fiber& fiber) {
    fiber.state = READY;
    fiber.shuffles = 0;
    fiber.copies.clear();
    fiber.groups = 0;
    if (fiber.entered) return;
    fiber.fake_stack = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
}

// After an error threads wait in the middle of a kernel; they begin anew.
inline void abandon() {
    for (Fiber& fiber : work->fibers) {
        fiber.entered = false;
        CLEAN(fiber.stack, STACK);
    }
}

// Puts the threads of a launch in their places.
inline void place(const unsigned (&size)[3], unsigned threads) {
    std::vector<Fiber>& fibers = work->fibers;
    fibers.reserve(MOST_THREADS);
    while (fibers.size() < threads) {
        fibers.emplace_back();
        fibers.back().stack = static_cast<char*>(malloc(STACK));
    }
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].warp = i / 32;
        fibers[i].lane = i % 32;
        fibers[i].thread = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
    }
}

// The places 0 to `count` - 1 in one of a launch's orders. Shuffled, they are so many apart, around the end, that each
// comes once, and begin elsewhere every time.
struct Places {
    uint64_t count, next, step;

    Places(uint64_t count, unsigned order, uint64_t time) : count(count), next(0), step(1) {
        if (count < 2) return;
        if (order == 1) {
            next = count - 1;
            step = count - 1;
        } else if (order == 2) {
            next = time * 7 % count;
            step = count * 5 / 8;
            while (std::gcd(step, count) != 1) step++;
        }
    }

    uint64_t take() {
        const uint64_t place = next;
        next = (next + step) % count;
        return place;
    }
};

inline void run_block(unsigned order) {
    const size_t count = work->block.threads;
    for (size_t i = 0; i < count; i++) begin(work->fibers[i]);
    for (uint64_t time = 1;; time++) {
        Places places(count, order, time);
        size_t done = 0;
        for (size_t i = 0; i < count; i++) {
            Fiber& fiber = work->fibers[places.take()];
            WATCH(watch_thread(&fiber - work->fibers.data()));
            if (fiber.state == READY) resume(fiber);
            WATCH(if (i % 32 == 31) watch_warp_stopped());
            if (!work->block.error.empty()) return;
            done += fiber.state == DONE;
        }
        if (done == count) return;
        if (!release()) {
            work->block.error = "a barrier or shuffle that only some of the threads reach";
            return;
        }
    }
}

// Runs a kernel over a grid; an empty text, or what went wrong.
inline const char* run(const Launch& launch, unsigned most, void (*kernel)(const void*), const void* params) {
    if (work == nullptr) work = new Work;
    std::string& answer = work->answer;
    const unsigned threads = launch.block[0] * launch.block[1] * launch.block[2];
    answer.clear();
    if (threads == 0 || threads > most || threads > MOST_THREADS) {
        answer = std::to_string(threads) + " threads a block, and the kernel takes " + std::to_string(most);
        return answer.c_str();
    }
    if (launch.grid[0] > 0x7fffffffu) return "a grid of more than 2147483647 in x";
    if (launch.shared_bytes > 227 * 1024) return "more than 227 KiB of shared memory a block";
    if (launch.grid[1] > 65535 || launch.grid[2] > 65535) return "a grid of more than 65535 in y or z";
    if (threads % 32 != 0) {
        answer = "blocks of whole warps only, not of " + std::to_string(threads) + " threads";
        return answer.c_str();
    }
    Block& here = work->block;
    here = Block();
    here.threads = threads;
    here.slots.resize(threads / 32 * 2);
    here.size = {launch.block[0], launch.block[1], launch.block[2]};
    here.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
    here.kernel = kernel;
    here.params = params;
    place(launch.block, threads);
    const uint64_t blocks = uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2];
    Places places(blocks, launch.order, 1);
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t block = places.take();
        const uint64_t row = block / launch.grid[0];
        const unsigned x = block % launch.grid[0], y = row % launch.grid[1], z = row / launch.grid[1];
        here.index = {x, y, z};
        here.shared = static_cast<float*>(malloc(launch.shared_bytes + 1));
        memset(here.shared, 0xff, launch.shared_bytes);
        WATCH(watch_block(x, y, z, here.shared, launch.shared_bytes));
        run_block(launch.order);
        free(here.shared);
        if (!here.error.empty()) {
            abandon();
            answer = here.error + " (block " + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
            return answer.c_str();
        }
    }
    return answer.c_str();
}

// Leaves a value for the other lanes of the warp; what all 32 left, until the exchange after the next.
template <class T>
const T* exchange(T value, int line = __builtin_LINE()) {
    static_assert(sizeof(T) <= 32 && alignof(T) <= alignof(Slots));
    T* left = reinterpret_cast<T*>(work->block.slots[work->current->warp * 2 + work->current->shuffles % 2].bytes);
    work->current->shuffles++;
    memcpy(&left[work->current->lane], &value, sizeof(T));
    give_way(AT_SHUFFLE, line);
    return left;
}

inline void check_aligned(const void* place) {
    if (reinterpret_cast<uintptr_t>(place) % 16 != 0) work->block.error = "an address that is no multiple of 16";
}

// Where an instruction reads 16 bytes for each lane, at a multiple of 16.
CALLED inline void want_aligned(const void* place) {
    check_aligned(place);
    WATCH(watch_shape(place, 16, false, __builtin_return_address(0)));
}

// A copy is made when it is waited for, the last moment that a card may choose: a wait that lacks shows.
CALLED inline void copy_later(void* to, const void* from, bool there) {
    check_aligned(to);
    check_aligned(from);
    const void* pc = nullptr;
    WATCH(pc = __builtin_return_address(0));
    WATCH(watch_order(to, 16, true, pc));
    WATCH(watch_shape(to, 16, true, pc));
    WATCH(if (there) watch_shape(from, 16, false, pc));
    work->current->copies.push_back({to, there ? from : nullptr, work->current->groups, pc});
}

inline void end_copies() { work->current->groups++; }

// Makes the copies of all groups but the last `but`.
CALLED inline void wait_for_copies(unsigned but) {
    std::vector<Copy> later;
    for (const Copy& copy : work->current->copies) {
        if (copy.group + but >= work->current->groups) {
            later.push_back(copy);
            continue;
        }
        WATCH(watch_order(copy.to, 16, true, copy.pc));
        WATCH(if (copy.from != nullptr) watch_order(copy.from, 16, false, copy.pc));
        if (copy.from == nullptr) memset(copy.to, 0, 16);
        else memcpy(copy.to, copy.from, 16);
    }
    work->current->copies.swap(later);
}

template <class T>
T shuffle(T value, unsigned source, int line) {
    return exchange(value, line)[source % 32];
}

}  // namespace emulation

#define threadIdx (emulation::work->current->thread)
#define blockIdx (emulation::work->block.index)
#define blockDim (emulation::work->block.size)
#define gridDim (emulation::work->block.grid)

// A default argument is taken where the call stands, and so is its line.
inline void __syncthreads(int line = __builtin_LINE()) { emulation::give_way(emulation::AT_BLOCK, line); }
inline void __syncwarp(unsigned = ~0u, int line = __builtin_LINE()) { emulation::give_way(emulation::AT_WARP, line); }
template <class T> T __shfl_sync(unsigned, T value, int lane, int line = __builtin_LINE()) { return emulation::shuffle(value, lane, line); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int line = __builtin_LINE()) {
    return emulation::shuffle(value, emulation::work->current->lane ^ mask, line);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned delta, int line = __builtin_LINE()) {
    const unsigned lane = emulation::work->current->lane;
    return emulation::shuffle(value, lane < delta ? lane : lane - delta, line);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned delta, int line = __builtin_LINE()) {
    const unsigned lane = emulation::work->current->lane;
    return emulation::shuffle(value, lane + delta > 31 ? lane : lane + delta, line);
}

// For each lane the lanes that have its value.
inline unsigned __match_any_sync(unsigned, unsigned value, int line = __builtin_LINE()) {
    unsigned equal = 0;
    const unsigned* values = emulation::exchange(value, line);
    for (unsigned lane = 0; lane < 32; lane++) equal |= unsigned(values[lane] == value) << lane;
    return equal;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __int_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(bits); }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline void sincospi(double x, double* s, double* c) {
    *s = sin(x * M_PI);
    *c = cos(x * M_PI);
}

#define KERNEL(threads, name, Params)                                                                          \
    static void name(const Params p);                                                                          \
    extern "C" emulation::Facts facts_of_##name() { return {sizeof(Params), threads}; }                        \
    extern "C" const char* params_of_##name() { return emulation::name_of<Params>(); }                         \
    extern "C" const char* emulate_##name(const emulation::Launch* launch, const void* bytes, size_t size) {   \
        if (size != sizeof(Params)) return "the parameters' size is not that of " #Params;                     \
        Params params;                                                                                         \
        memcpy(&params, bytes, size);                                                                          \
        return emulation::run(*launch, threads, [](const void* p) { name(*static_cast<const Params*>(p)); }, &params); \
    }                                                                                                          \
    static void name(const Params p)
#define SHARED(name) float* const name = emulation::work->block.shared
