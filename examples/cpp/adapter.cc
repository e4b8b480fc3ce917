// adapter MODEL ADAPTER [exact] < lines of token ids > lines of logits
//
// The task must read the mean of a text's tokens (pooling "mean"). "exact": for int8 on x86 without VNNI.
#include <iostream>
#include <iterator>
#include <sstream>

#include "task.h"

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("expected MODEL ADAPTER [exact]");
  Task task(argv[1], argv[2], argc > 3 && std::string(argv[3]) == "exact");
  std::cout.precision(9);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream numbers(line);
    const std::vector<int64_t> ids(std::istream_iterator<int64_t>(numbers), {});
    if (ids.empty()) throw std::runtime_error("a line has no token ids");
    const char* before = "";
    for (const float logit : task.logits(ids, 0, static_cast<int64_t>(ids.size())))
      std::cout << std::exchange(before, " ") << logit;
    std::cout << '\n';
  }
} catch (const std::exception& error) {
  std::cerr << "adapter: " << error.what() << '\n';
  return 1;
}
