// ids BUNDLE MOST < lines of text > lines of token ids, as examples/cpp/classify.cc reads them
#include <iostream>

#include "wordpiece.h"

int main(int, char** argv) {
  const WordPiece tokenizer(std::string(argv[1]) + "/tokenizer.json");
  for (std::string text; std::getline(std::cin, text);) {
    const char* before = "";
    for (const auto id : tokenizer.encode(text, std::stoul(argv[2]))) std::cout << std::exchange(before, " ") << id;
    std::cout << '\n';
  }
}
