// Answers questions about launch.h and image.h, one a line, each with one line of JSON:
//   plan QUERIES KEYS D DV SHARED BATCH PROCESSORS RESIDENT | map FORM KIND CHANNELS POSITIONS | image CAPABILITY DRIVER
#include <cstdio>
#include <iostream>
#include <map>
#include <string>

#include "image.h"
#include "launch.h"

using namespace finedge;

static void answer_plan() {
    AttentionShape s{};
    Gpu gpu{};
    int one_map;
    std::cin >> s.queries >> s.keys >> s.d >> s.dv >> one_map >> s.batch >> gpu.processors >> gpu.resident;
    Kernel const& k = *kernel_for(s.d, s.dv, one_map);
    Launch const l = plan(k, s, gpu);
    long long const bytes = l.workspace_bytes, bound = workspace_bound(k, s);
    std::printf("{\"kernel\": \"%s\", \"shared_bytes\": %d, \"grid\": [%d, %d, %d]", k.name, k.shared_bytes, l.rows, l.splits, s.batch);
    std::printf(", \"block\": [%d, 1, 1]", k.threads);
    std::printf(", \"splits\": %d, \"workspace_bytes\": %lld, \"workspace_bound\": %lld}\n", l.splits, bytes, bound);
}

static void answer_map() {
    static std::map<std::string, Form> const forms = {{"LINEAR", Form::kLinear}, {"HWC", Form::kHwc}, {"HWC8", Form::kHwc8}, {"CHW32", Form::kChw32}};
    std::string form;
    int kind, channels, positions;
    std::cin >> form >> kind >> channels >> positions;
    if (!is_readable(forms.at(form), static_cast<Kind>(kind), channels, positions)) {
        std::printf("null\n");
        return;
    }
    Map const m = lay_out(forms.at(form), static_cast<Kind>(kind), channels, positions, 1);
    std::printf("{\"batch\": %lld, \"token\": %d, \"group\": %d, \"channel\": %d, \"kind\": %d}\n", m.batch, m.token, m.group, m.channel, m.kind);
}

static void answer_image() {
    int capability, driver;
    std::cin >> capability >> driver;
    Image const* const image = image_for(capability, driver);
    image ? std::printf("[%d, %s]\n", image->architecture, image->is_ptx ? "true" : "false") : std::printf("null\n");
}

int main() {
    for (std::string question; std::cin >> question;) question == "plan" ? answer_plan() : question == "map" ? answer_map() : answer_image();
}
