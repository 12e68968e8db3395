// SPDX-License-Identifier: GPL-3.0-or-later
// Every fixture cut off at many places and with bytes changed (seeded): an input error or a readable model, never a crash.
// Values are read from exactly sized copies, so that the address sanitizer sees a step past the end.
#include "checkpointtest.h"

#include "engine/core/random.h"

namespace spectra::test {
namespace {

struct Fixture {
    std::string name, config, bytes;
};

std::vector<Fixture> all()
{
    std::vector<Fixture> out;
    for (const char *name : {"llama-gqa-f32.gguf", "llama-gqa-mixed.gguf", "llama-rope-llama3-f32.gguf", "mixtral-gqa-f16.gguf", "llama-kquants.gguf"})
        out.push_back({name, {}, readFile(fixtures() / "checkpoint" / name)});
    for (const char *name : {"models/llama-gqa", "models/mixtral-gqa", "models/mixtral-rope-linear-fused", "checkpoint/spectra-tiny"})
        out.push_back({name, readFile(fixtures() / name / "config.json"), readFile(fixtures() / name / "model.safetensors")});
    return out;
}

/// True when it opened.
bool tryOpen(const Fixture &fixture, const std::string &bytes, bool read)
{
    const auto opened = fixture.config.empty() ? openGguf(fixture.name, {dataFile(fixture.name, bytes)})
                                               : openSafetensors(fixture.name, fixture.config, {dataFile("model.safetensors", bytes)}, "");
    if (!opened.ok()) {
        EXPECT_EQ(opened.error().kind, ErrorKind::input) << errorText(opened);
        EXPECT_FALSE(opened.error().what.empty());
        EXPECT_FALSE(opened.error().where.empty()) << errorText(opened);
        return false;
    }
    if (read)
        readEverything(**opened);
    return true;
}

TEST(Faults, TruncatedFilesAreRefused)
{
    for (const Fixture &f : all()) {
        ASSERT_TRUE(tryOpen(f, f.bytes, true)) << f.name;
        // The header densely, then the data sparsely.
        for (std::size_t n = 0; n < f.bytes.size(); n += n < 512 ? 1 : n < 6000 ? 37 : f.bytes.size() / 50 + 1)
            EXPECT_FALSE(tryOpen(f, f.bytes.substr(0, n), false)) << f.name << " cut to " << n << " bytes";
        EXPECT_FALSE(tryOpen(f, f.bytes.substr(0, f.bytes.size() - 33), false)) << f.name;
    }
}

TEST(Faults, ChangedBytesNeverCrash)
{
    Random random(20);
    int opened = 0, refused = 0;
    for (const Fixture &f : all())
        for (int trial = 0; trial < 150; ++trial) {
            std::string bytes = f.bytes;
            // Most of the meaning is at the front: three in four changes go there.
            const std::size_t front = std::min<std::size_t>(bytes.size(), 5000);
            for (std::uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
                const std::size_t at = random.below(random.below(4) == 0 ? bytes.size() : front);
                switch (random.below(3)) {
                case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8))); break;
                case 1: bytes[at] = static_cast<char>(random()); break;
                default: bytes[at] = random.below(2) == 0 ? '\0' : '\xFF';
                }
            }
            ++(tryOpen(f, bytes, trial % 5 == 0) ? opened : refused);
        }
    EXPECT_GT(refused, 300) << "the changes hit what is checked";
    EXPECT_GT(opened, 30) << "and what is not";
}

TEST(Faults, ChangedConfigurationsNeverCrash)
{
    Random random(21);
    for (const Fixture &f : all()) {
        if (f.config.empty())
            continue;
        for (int trial = 0; trial < 300; ++trial) {
            Fixture changed = f;
            for (std::uint64_t n = 1 + random.below(3); n > 0; --n) {
                const std::size_t at = random.below(changed.config.size());
                static constexpr std::string_view signs = "0123456789-eE.,:{}[]\"ntf \xFF";
                if (random.below(4) == 0)
                    changed.config.erase(at, 1 + random.below(20));
                else
                    changed.config[at] = signs[random.below(signs.size())];
                if (changed.config.empty())
                    break;
            }
            (void)tryOpen(changed, f.bytes, false);
        }
    }
}

} // namespace
} // namespace spectra::test
