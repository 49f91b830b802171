// What kernels do to memory, seen access by access: who else touched a place without a barrier between (a race, whatever
// the values), what nobody wrote, and how the lanes of a warp fall into sectors and banks. A kernel compiled with
// -fsanitize=thread calls one function before each access; these are our own, the compiler's library is not linked. One
// library of it in a process, and all but allocations and totals is a thread's own: a launch runs on one thread.
//
// Two accesses are in order where a barrier of the block, or a meeting of the warp (__syncwarp, a shuffle, a product)
// stands between, and never where they are of two blocks of a launch. So of each place the last writer is kept, and of the
// readers since then the last, and the last of another lane, warp and block than that one: no other can be the first to be
// in no order with a writer to come, as the order is one of stages.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <unistd.h>
#include <unordered_map>
#include <vector>

namespace {

constexpr uintptr_t PAGE = 4096;
constexpr unsigned LANES = 32, BANKS = 32, SECTOR = 32, MOST_SHARED = 227 * 1024, MOST_FINDINGS = 8;

enum Mode : unsigned { ORDER = 1, SHAPE = 2 };

// An access; `block` 0 is none. Blocks are numbered over all launches of a thread.
struct Access {
    uintptr_t pc;
    uint32_t block, barriers, meetings;
    uint16_t thread;
};

// What is kept of a place. `lane`, `warp` and `other`: reads by another lane, warp and block than `read`.
struct Place {
    Access write, read, lane, warp, other;
};

// Four bytes; halves of them are apart once one of them was touched alone.
struct Word {
    Place halves[2];
    bool split;
};

// What is told of two accesses, or of one that reads what nobody wrote.
struct Finding {
    uint64_t kind;  // 0 race, 1 not written
    uint64_t address, offset, bytes;  // offset in its allocation of so many bytes, or in shared memory
    uint64_t shared;
    struct {
        uint64_t pc, write, thread, block[3];
    } accesses[2];  // the second is the later one
};

struct Allocation {
    size_t bytes;
    std::unique_ptr<uint8_t[]> written;  // a bit for each byte of a word
};

std::mutex allocations_lock;
std::map<uintptr_t, Allocation> allocations;
std::atomic<uint64_t> generation{1};

// The allocation that holds an address, if one does.
std::map<uintptr_t, Allocation>::iterator holder(uintptr_t address) {
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return allocations.end();
    auto found = std::prev(next);
    const size_t pages = (found->second.bytes + PAGE - 1) / PAGE * PAGE;
    return address < found->first + pages ? found : allocations.end();
}

struct Page {
    uint64_t generation = 0;
    uint8_t* written = nullptr;  // null: not of the device
    Word* words = nullptr;
    bool device() const { return written != nullptr; }
};

// Accesses of a warp's lanes by one instruction for the same time since they last met.
struct Group {
    uint32_t mask;
    uintptr_t address[LANES];
};

// Sums over the groups of an instruction. Passes are sectors of global memory, or turns of the banks of shared memory.
struct Totals {
    uint64_t requests = 0, passes = 0, ideal = 0, worst = 0;
};

struct Site {
    uintptr_t pc;
    bool shared, write;
    unsigned size;
    Totals totals;
    std::vector<Group> groups;
    uint32_t live = 0;
    uint32_t counts[LANES] = {};
};

using SiteName = std::tuple<std::string, uintptr_t, bool, bool, unsigned>;
std::mutex totals_lock;
std::map<SiteName, Totals>& all_totals() {
    // It outlives what ends with the process, of which the writing of it is a part.
    static auto* totals = new std::map<SiteName, Totals>;
    return *totals;
}

struct Watcher {
    unsigned mode = 0;
    std::string kernel;
    uint32_t block = 0, first_block = 1, barriers = 0, thread = 0;
    std::array<uint32_t, 1024 / LANES> meetings;
    std::vector<std::array<uint32_t, 3>> blocks;  // of this launch
    uintptr_t shared = 0;
    size_t shared_bytes = 0;
    Word* shared_words = nullptr;
    std::unordered_map<uintptr_t, Page> pages;
    uint64_t generation = 0;
    struct Recent {
        uintptr_t number;
        Page* page;
    };
    std::array<Recent, 1024> recent;
    std::vector<Finding> findings;
    std::vector<Site> sites;
    std::unordered_map<uintptr_t, uint32_t> site_of;
    std::vector<uint32_t> touched;

    Page* page(uintptr_t address) {
        const uintptr_t number = address / PAGE;
        Recent& recent = this->recent[number % this->recent.size()];
        if (recent.number == number) return recent.page;
        Page& page = pages[number];
        if (page.generation != generation) {
            std::lock_guard guard(allocations_lock);
            const auto found = holder(address);
            page.generation = generation;
            page.written = found == allocations.end() ? nullptr : &found->second.written[(number * PAGE - found->first) / 4];
            if (page.device() && page.words == nullptr) page.words = static_cast<Word*>(calloc(PAGE / 4, sizeof(Word)));
        }
        recent = {number, &page};
        return &page;
    }

    // Whether an earlier access and one of now are in no order. Those before `first` are not of this memory.
    bool apart(const Access& earlier, const Access& now, uint32_t first) const {
        if (earlier.block < first) return false;
        if (earlier.block != now.block) return true;
        if (earlier.thread == now.thread || earlier.barriers != now.barriers) return false;
        return earlier.thread / LANES != now.thread / LANES || earlier.meetings == now.meetings;
    }

    void tell(uint64_t kind, uintptr_t address, const Access* earlier, bool earlier_writes, const Access& now, bool writes) {
        for (const Finding& known : findings)
            if (known.kind == kind && known.accesses[1].pc == now.pc && (earlier == nullptr || known.accesses[0].pc == earlier->pc)) return;
        if (findings.size() >= MOST_FINDINGS) return;
        Finding finding = {};
        finding.kind = kind;
        finding.address = address;
        if (address - shared < shared_bytes) {
            finding.shared = 1;
            finding.offset = address - shared;
            finding.bytes = shared_bytes;
        } else {
            std::lock_guard guard(allocations_lock);
            const auto found = holder(address);
            if (found != allocations.end()) finding.offset = address - found->first, finding.bytes = found->second.bytes;
        }
        const auto fill = [&](auto& to, const Access& access, bool write) {
            to.pc = access.pc;
            to.write = write;
            to.thread = access.thread;
            const auto& index = blocks[access.block - first_block];
            for (int i = 0; i < 3; i++) to.block[i] = index[i];
        };
        if (earlier != nullptr) fill(finding.accesses[0], *earlier, earlier_writes);
        fill(finding.accesses[1], now, writes);
        findings.push_back(finding);
    }

    void touch(Place& place, uintptr_t address, const Access& now, bool write, uint32_t first) {
        if (apart(place.write, now, first)) tell(0, address, &place.write, true, now, write);
        if (write) {
            for (const Access* read : {&place.read, &place.lane, &place.warp, &place.other})
                if (apart(*read, now, first)) tell(0, address, read, false, now, true);
            place = Place{now, {}, {}, {}, {}};
            return;
        }
        if (place.read.block < first) {
            place.read = now;
            place.lane = place.warp = place.other = {};
            return;
        }
        if (place.read.block != now.block) place.other = place.read, place.warp = place.lane = {};
        else if (place.read.thread / LANES != now.thread / LANES) place.warp = place.read, place.lane = {};
        else if (place.read.thread != now.thread) place.lane = place.read;
        place.read = now;
    }

    void touch_word(Word& word, uintptr_t address, unsigned halves, const Access& now, bool write, uint32_t first) {
        if (halves != 3 && !word.split) {
            word.split = true;
            word.halves[1] = word.halves[0];
        }
        if (halves & 1 || !word.split) touch(word.halves[0], address, now, write, first);
        if (halves & 2 && word.split) touch(word.halves[1], address, now, write, first);
    }

    void order(uintptr_t begin, size_t size, bool write, uintptr_t pc) {
        const Access now = {pc, block, barriers, meetings[thread / LANES], uint16_t(thread)};
        for (uintptr_t address = begin & ~uintptr_t(3); address < begin + size; address += 4) {
            // Halves of this word that are touched, and its bytes.
            const unsigned from = begin > address ? begin - address : 0, to = std::min<uintptr_t>(begin + size - address, 4);
            const unsigned halves = (from < 2 ? 1 : 0) | (to > 2 ? 2 : 0);
            const uint8_t bytes = ((1u << to) - 1) & ~((1u << from) - 1);
            if (address - shared < shared_bytes) {
                touch_word(shared_words[(address - shared) / 4], address, halves, now, write, block);
                continue;
            }
            Page* page = this->page(address);
            if (!page->device()) continue;
            const size_t index = address % PAGE / 4;
            touch_word(page->words[index], address, halves, now, write, first_block);
            if (write) page->written[index] |= bytes;
            else if ((page->written[index] & bytes) != bytes) tell(1, address, nullptr, false, now, false);
        }
    }

    void shape(uintptr_t address, size_t size, bool write, uintptr_t pc) {
        const bool in_shared = address - shared < shared_bytes;
        if (!in_shared && !page(address)->device()) return;
        const auto [found, fresh] = site_of.try_emplace(pc << 2 | unsigned(write) << 1 | unsigned(in_shared), uint32_t(sites.size()));
        if (fresh) {
            sites.emplace_back();
            sites.back().pc = pc;
            sites.back().shared = in_shared;
            sites.back().write = write;
            sites.back().size = size;
        }
        Site& site = sites[found->second];
        const unsigned lane = thread % LANES;
        const uint32_t turn = site.counts[lane]++;
        if (site.live == 0) touched.push_back(found->second);
        if (turn == site.groups.size()) site.groups.emplace_back();
        if (turn >= site.live) {
            site.groups[turn].mask = 0;
            site.live = turn + 1;
        }
        site.groups[turn].mask |= 1u << lane;
        site.groups[turn].address[lane] = address;
    }

    // Sectors that lanes ask for, and how many their bytes would fill.
    static void count_sectors(const Group& group, unsigned size, Totals& totals) {
        static thread_local std::vector<uintptr_t> sectors, units;
        sectors.clear();
        units.clear();
        for (unsigned lane = 0; lane < LANES; lane++) {
            if ((group.mask >> lane & 1) == 0) continue;
            const uintptr_t begin = group.address[lane];
            for (uintptr_t at = begin / SECTOR; at <= (begin + size - 1) / SECTOR; at++) sectors.push_back(at);
            for (uintptr_t at = begin / 2; at <= (begin + size - 1) / 2; at++) units.push_back(at);
        }
        const auto distinct = [](std::vector<uintptr_t>& list) {
            std::sort(list.begin(), list.end());
            return uint64_t(std::unique(list.begin(), list.end()) - list.begin());
        };
        const uint64_t asked = distinct(sectors), ideal = (distinct(units) * 2 + SECTOR - 1) / SECTOR;
        totals.requests++;
        totals.passes += asked;
        totals.ideal += ideal;
        totals.worst = std::max(totals.worst, asked);
    }

    // Turns that the banks take: different words of one bank come one after the other. Lanes ask together, for 8 bytes
    // in halves of a warp and for 16 in quarters.
    void count_banks(const Group& group, unsigned size, Totals& totals) const {
        const unsigned parts = size >= 16 ? 4 : size >= 8 ? 2 : 1;
        totals.requests++;
        for (unsigned part = 0; part < parts; part++) {
            uintptr_t words[BANKS][LANES];
            unsigned counts[BANKS] = {}, most = 0;
            for (unsigned lane = part * LANES / parts; lane < (part + 1) * LANES / parts; lane++) {
                if ((group.mask >> lane & 1) == 0) continue;
                const uintptr_t begin = group.address[lane] - shared;
                for (uintptr_t word = begin / 4; word <= (begin + size - 1) / 4; word++) {
                    const unsigned bank = word % BANKS;
                    const auto end = words[bank] + counts[bank];
                    if (std::find(words[bank], end, word) == end) words[bank][counts[bank]++] = word;
                    most = std::max(most, counts[bank]);
                }
            }
            totals.passes += most;
            totals.ideal += most > 0;
            totals.worst = std::max<uint64_t>(totals.worst, most);
        }
    }

    void warp_stopped() {
        for (const uint32_t index : touched) {
            Site& site = sites[index];
            for (uint32_t turn = 0; turn < site.live; turn++) {
                if (site.shared) count_banks(site.groups[turn], site.size, site.totals);
                else count_sectors(site.groups[turn], site.size, site.totals);
            }
            site.live = 0;
            std::fill(std::begin(site.counts), std::end(site.counts), 0);
        }
        touched.clear();
    }

    void access(uintptr_t address, size_t size, bool write, uintptr_t pc) {
        if (mode & ORDER) order(address, size, write, pc);
        if (mode & SHAPE) shape(address, size, write, pc);
    }
};

// It stays: an ending thread must not take what the end of the process still reads.
__attribute__((tls_model("initial-exec"))) thread_local Watcher* watcher = nullptr;

inline void access(const void* address, size_t size, bool write, void* pc) {
    if (watcher != nullptr && watcher->mode != 0) watcher->access(uintptr_t(address), size, write, uintptr_t(pc));
}

// For each word of some bytes of an allocation and its bits there, until the answer is false.
template <class F>
void each_word(uintptr_t begin, size_t bytes, F use) {
    std::lock_guard guard(allocations_lock);
    const auto found = holder(begin);
    if (found == allocations.end()) return;
    for (size_t at = begin - found->first; at < begin - found->first + bytes;) {
        const size_t end = std::min(at / 4 * 4 + 4, begin - found->first + bytes);
        const uint8_t bits = ((1u << (end - at / 4 * 4)) - 1) & ~((1u << at % 4) - 1);
        if (!use(found->second.written[at / 4], bits)) return;
        at = end;
    }
}

}  // namespace

extern "C" {

// Of the device's memory.

void watch_allocate(uintptr_t address, size_t bytes) {
    std::lock_guard guard(allocations_lock);
    allocations[address] = {bytes, std::unique_ptr<uint8_t[]>(new uint8_t[(bytes + PAGE) / PAGE * PAGE / 4]())};
    generation++;
}

void watch_free(uintptr_t address) {
    std::lock_guard guard(allocations_lock);
    allocations.erase(address);
    generation++;
}

void watch_written(uintptr_t begin, size_t bytes, bool written) {
    each_word(begin, bytes, [&](uint8_t& word, uint8_t bits) {
        word = written ? word | bits : word & ~bits;
        return true;
    });
}

// Whether somebody wrote all of it.
bool watch_is_written(uintptr_t begin, size_t bytes) {
    bool all = true;
    each_word(begin, bytes, [&](uint8_t& word, uint8_t bits) { return all = (word & bits) == bits; });
    return all;
}

// A copy of whole words: what nobody wrote is that at its new place too.
void watch_copied(uintptr_t to, uintptr_t from, size_t bytes) {
    std::vector<uint8_t> words;
    each_word(from, bytes, [&](uint8_t& word, uint8_t) { return words.push_back(word), true; });
    size_t index = 0;
    each_word(to, bytes, [&](uint8_t& word, uint8_t) { return word = words[index++], index < words.size(); });
}

// Of a launch.

void watch_begin(const char* kernel, unsigned mode) {
    if (watcher == nullptr) watcher = new Watcher;
    Watcher& here = *watcher;
    here.mode = mode;
    here.kernel = kernel;
    here.first_block = here.block + 1;
    // The last block's shared memory is free, and may be anything now.
    here.shared_bytes = 0;
    here.blocks.clear();
    here.findings.clear();
    here.sites.clear();
    here.site_of.clear();
    here.touched.clear();
    if (here.generation != generation.load()) {
        here.generation = generation.load();
        here.recent.fill({});
    }
    if (here.shared_words == nullptr) here.shared_words = static_cast<Word*>(calloc(MOST_SHARED / 4 + 1, sizeof(Word)));
}

// Ends a launch; what was found.
size_t watch_end(const Finding** findings) {
    Watcher& here = *watcher;
    here.mode = 0;
    std::lock_guard guard(totals_lock);
    for (const Site& site : here.sites) {
        Totals& sum = all_totals()[{here.kernel, site.pc, site.shared, site.write, site.size}];
        sum.requests += site.totals.requests;
        sum.passes += site.totals.passes;
        sum.ideal += site.totals.ideal;
        sum.worst = std::max(sum.worst, site.totals.worst);
    }
    *findings = here.findings.data();
    return here.findings.size();
}

// Where an instruction stands: its library, whose name lives as long as that does, and the place there.
const char* watch_library_of(uintptr_t pc, uint64_t* offset) {
    Dl_info info = {};
    if (dladdr(reinterpret_cast<void*>(pc), &info) == 0) return nullptr;
    // What is given is where a call returns to.
    *offset = pc - 1 - uintptr_t(info.dli_fbase);
    return info.dli_fname;
}

// Adds the sums of all launches to a file, a line for each instruction, and forgets them.
void watch_write_totals(const char* path) {
    std::lock_guard guard(totals_lock);
    if (all_totals().empty()) return;
    FILE* file = fopen(path, "a");
    if (file == nullptr) return;
    for (const auto& [name, totals] : all_totals()) {
        const auto& [kernel, pc, shared, write, size] = name;
        uint64_t offset = 0;
        const char* library = watch_library_of(pc, &offset);
        fprintf(file, "%s\t%#llx\t%s\t%s\t%s\t%u\t%llu\t%llu\t%llu\t%llu\n", library ? library : "?", (unsigned long long)offset, kernel.c_str(),
                shared ? "shared" : "global", write ? "write" : "read", size, (unsigned long long)totals.requests,
                (unsigned long long)totals.passes, (unsigned long long)totals.ideal, (unsigned long long)totals.worst);
    }
    fclose(file);
    all_totals().clear();
}

__attribute__((destructor)) static void leave_totals() {
    if (const char* folder = getenv("LONGHAUL_EMULATOR_ACCESSES")) {
        char name[32];
        snprintf(name, sizeof name, "/%ld.tsv", long(getpid()));
        watch_write_totals((std::string(folder) + name).c_str());
    }
}

// Of a block, from emulation.hpp.

void watch_block(unsigned x, unsigned y, unsigned z, const void* shared, size_t bytes) {
    if (watcher == nullptr) return;
    watcher->block++;
    watcher->blocks.push_back({x, y, z});
    watcher->barriers = 0;
    watcher->meetings.fill(0);
    watcher->shared = uintptr_t(shared);
    watcher->shared_bytes = bytes;
}

void watch_thread(unsigned thread) {
    if (watcher != nullptr) watcher->thread = thread;
}

void watch_warp_stopped() {
    if (watcher != nullptr && watcher->mode & SHAPE) watcher->warp_stopped();
}

void watch_meeting(unsigned warp) {
    if (watcher != nullptr) watcher->meetings[warp]++;
}

void watch_barrier() {
    if (watcher != nullptr) watcher->barriers++;
}

// An access of an instruction that a plain form stands for: in which order it is, and how its lanes fall together.
void watch_order(const void* address, size_t size, bool write, const void* pc) {
    if (watcher != nullptr && watcher->mode & ORDER) watcher->order(uintptr_t(address), size, write, uintptr_t(pc));
}

void watch_shape(const void* address, size_t size, bool write, const void* pc) {
    if (watcher != nullptr && watcher->mode & SHAPE) watcher->shape(uintptr_t(address), size, write, uintptr_t(pc));
}

// What the compiler calls.

#define SIZED(size)                                                                                                          \
    void __tsan_read##size(const void* address) { access(address, size, false, __builtin_return_address(0)); }               \
    void __tsan_write##size(const void* address) { access(address, size, true, __builtin_return_address(0)); }               \
    void __tsan_unaligned_read##size(const void* address) { access(address, size, false, __builtin_return_address(0)); }     \
    void __tsan_unaligned_write##size(const void* address) { access(address, size, true, __builtin_return_address(0)); }     \
    void __tsan_volatile_read##size(const void* address) { access(address, size, false, __builtin_return_address(0)); }      \
    void __tsan_volatile_write##size(const void* address) { access(address, size, true, __builtin_return_address(0)); }
SIZED(1) SIZED(2) SIZED(4) SIZED(8) SIZED(16)

void __tsan_read_range(const void* address, size_t size) { access(address, size, false, __builtin_return_address(0)); }
void __tsan_write_range(const void* address, size_t size) { access(address, size, true, __builtin_return_address(0)); }
void __tsan_vptr_update(const void*, const void*) {}
void __tsan_vptr_read(const void*) {}
void __tsan_func_entry(const void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

}  // extern "C"
