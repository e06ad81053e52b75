/* What C++ promises of operator new and operator delete, in all their forms. Ends with "kept". With the argument "memory_lasts" without the
 * chapter in which it does not. */
#include "check.h"

#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

/* As large as asked for, wherever the compiler may look. */
constexpr size_t hopeless_size = static_cast<size_t>(PTRDIFF_MAX) - 4096;

struct alignas(256) Wide {
    char bytes[300];
};
struct Narrow {
    long numbers[3];
    virtual ~Narrow() = default;
};

/* The forms by name, as a program calls them that the compiler does not help. */
void all_forms()
{
    const auto wide = std::align_val_t{512};
    for (size_t size : {size_t{0}, size_t{1}, size_t{24}, size_t{100}, 4 * KiB, 100 * KiB, 256 * KiB, MiB, 5 * MiB}) {
        size = unknown(size);
        void *blocks[] = {
            ::operator new(size),
            ::operator new[](size),
            ::operator new(size, std::nothrow),
            ::operator new[](size, std::nothrow),
            ::operator new(size, wide),
            ::operator new[](size, wide),
            ::operator new(size, wide, std::nothrow),
            ::operator new[](size, wide, std::nothrow),
            ::operator new(size),
            ::operator new[](size),
            ::operator new(size, wide),
            ::operator new[](size, wide),
        };
        int nth = 0;
        for (void *block : blocks) {
            const bool is_wide = (nth >= 4 && nth < 8) || nth >= 10;
            CHECK_FOR(block != nullptr, "form %d of %zu bytes", nth, size);
            CHECK_FOR(reinterpret_cast<uintptr_t>(block) % (is_wide ? 512 : 16) == 0, "form %d of %zu bytes", nth, size);
            CHECK_FOR(malloc_usable_size(block) >= size, "form %d of %zu bytes", nth, size);
            for (void *other : blocks)
                CHECK(other == block || other != nullptr);
            mark(block, size, nth++);
        }
        nth = 0;
        for (void *block : blocks)
            CHECK_FOR(is_marked(block, size, size, nth++), "form %d of %zu bytes", nth, size);
        ::operator delete(blocks[0]);
        ::operator delete[](blocks[1]);
        ::operator delete(blocks[2], std::nothrow);
        ::operator delete[](blocks[3], std::nothrow);
        ::operator delete(blocks[4], wide);
        ::operator delete[](blocks[5], wide);
        ::operator delete(blocks[6], wide, std::nothrow);
        ::operator delete[](blocks[7], wide, std::nothrow);
        ::operator delete(blocks[8], size);
        ::operator delete[](blocks[9], size);
        ::operator delete(blocks[10], size, wide);
        ::operator delete[](blocks[11], size, wide);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, size_t{8});
    ::operator delete(nullptr, wide);
    delete new Wide;
    delete[] new Wide[unknown(7)];
    delete new Narrow;
    delete[] new Narrow[unknown(1000)];
    /* Blocks of the two languages come from one heap. */
    free(new long);
    ::operator delete(malloc(100));
}

int handler_calls;
void gives_up()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}
struct Refusal {};
void refuses()
{
    throw Refusal{};
}

template <typename Allocate> bool throws_bad_alloc(Allocate allocate)
{
    try {
        allocate();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

void out_of_memory()
{
    const size_t size = unknown(hopeless_size);
    const auto wide = std::align_val_t{64};
    for (int with_handler = 0; with_handler < 2; with_handler++) {
        int form = 0;
        auto fails = [&](auto allocate, bool throws) {
            handler_calls = 0;
            if (with_handler)
                std::set_new_handler(gives_up);
            void *block = &form;
            const bool thrown = throws_bad_alloc([&] { block = allocate(); });
            CHECK_FOR(thrown == throws, "form %d", form);
            CHECK_FOR(throws ? block == &form : block == nullptr, "form %d", form);
            CHECK_FOR(handler_calls == (with_handler ? 3 : 0), "form %d: %d", form, handler_calls);
            form++;
        };
        fails([&] { return ::operator new(size); }, true);
        fails([&] { return ::operator new[](size); }, true);
        fails([&] { return ::operator new(size, wide); }, true);
        fails([&] { return ::operator new[](size, wide); }, true);
        fails([&] { return ::operator new(size, std::nothrow); }, false);
        fails([&] { return ::operator new[](size, std::nothrow); }, false);
        fails([&] { return ::operator new(size, wide, std::nothrow); }, false);
        fails([&] { return ::operator new[](size, wide, std::nothrow); }, false);
    }
    /* What a handler throws goes through, except through the forms that do not throw. */
    std::set_new_handler(refuses);
    bool refused = false;
    try {
        ::operator delete(::operator new(size));
    } catch (const Refusal &) {
        refused = true;
    }
    CHECK(refused);
    bool refused_array = false;
    try {
        ::operator delete[](::operator new[](size, wide));
    } catch (const Refusal &) {
        refused_array = true;
    }
    CHECK(refused_array);
    std::set_new_handler(refuses);
    CHECK(::operator new(size, std::nothrow) == nullptr);
    CHECK(::operator new[](size, std::nothrow) == nullptr);
    CHECK(::operator new(size, wide, std::nothrow) == nullptr);
    CHECK(::operator new[](size, wide, std::nothrow) == nullptr);
    std::set_new_handler(nullptr);
    CHECK(throws_bad_alloc([&] { std::vector<char> vector(size); }));
    CHECK(throws_bad_alloc([&] { std::string text(size / 2, 'x'); }));
}

/* A destructor in thread-local memory that allocates and frees. */
struct Last {
    std::vector<std::string> words;
    ~Last()
    {
        for (int nth = 0; nth < 100; nth++)
            words.push_back(std::string(static_cast<size_t>(nth) * 10, 'w'));
        words.clear();
    }
};
thread_local Last last;

size_t work(unsigned seed)
{
    last.words.push_back("a thread was here, and leaves something behind");
    std::map<unsigned, std::string> map;
    std::vector<std::unique_ptr<Wide>> wides;
    for (unsigned nth = 0; nth < 5000; nth++) {
        seed = seed * 1664525 + 1013904223;
        map[seed >> 20] += std::string(seed >> 25, 'x');
        if (nth % 50 == 0)
            wides.push_back(std::make_unique<Wide>());
        if (nth % 3 == 0)
            map.erase(map.begin());
    }
    size_t sum = 0;
    for (const auto &entry : map)
        sum += entry.second.size();
    return sum;
}

void library()
{
    const size_t alone = work(1);
    std::vector<size_t> sums(8);
    std::vector<std::thread> threads;
    for (size_t nth = 0; nth < sums.size(); nth++)
        threads.emplace_back([&sums, nth] { sums[nth] = work(1); });
    for (auto &thread : threads)
        thread.join();
    for (size_t sum : sums)
        CHECK(sum == alone);
    auto passed = std::make_shared<std::string>(1000, 'p');
    std::thread([passed] { CHECK(passed->size() == 1000); }).join();
}

} // namespace

int main(int count, char **arguments)
{
    all_forms();
    if (count < 2 || strcmp(arguments[1], "memory_lasts") != 0)
        out_of_memory();
    library();
    puts("kept");
}
