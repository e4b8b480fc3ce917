// BERT's tokenizer (WordPiece) for texts in ASCII, from a bundle's tokenizer.json.
//
// It is small, so it refuses what it does not do: other tokenizers, and texts with other characters, which BERT's
// normalizer takes apart by Unicode's tables. For those use the tokenizers library, which the file is made for.
#pragma once

#include <cctype>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

class WordPiece {
 public:
  explicit WordPiece(const std::string& file) {
    const auto read = nlohmann::json::parse(std::ifstream(file));
    const auto& model = read.at("model");
    const auto& normalizer = read.at("normalizer");
    if (model.value("type", "") != "WordPiece" || normalizer.value("type", "") != "BertNormalizer" ||
        read.at("pre_tokenizer").value("type", "") != "BertPreTokenizer")
      throw std::runtime_error(file + " is no tokenizer of BERT's: use the tokenizers library");
    lower_ = normalizer.value("lowercase", true);
    longest_ = model.value("max_input_chars_per_word", size_t{100});
    for (const auto& [piece, id] : model.at("vocab").items()) ids_.emplace(piece, id.get<int64_t>());
    unknown_ = ids_.at(model.at("unk_token").get<std::string>());
    begin_ = ids_.at("[CLS]");
    end_ = ids_.at("[SEP]");
    for (const auto& token : read.at("added_tokens")) added_.push_back(token.at("content").get<std::string>());
  }

  // The ids of a text, of at most `most` tokens with the special ones; a longer text is cut at its end.
  std::vector<int64_t> encode(const std::string& text, size_t most) const {
    for (const auto& token : added_)
      if (text.find(token) != std::string::npos)
        throw std::runtime_error("the text has '" + token + "' in it: use the tokenizers library");
    std::vector<int64_t> ids{begin_};
    std::string word;
    const auto finish = [&] {
      if (!word.empty()) append(word, ids);
      word.clear();
    };
    for (const unsigned char letter : text) {
      if (letter > 127) throw std::runtime_error("the text is not ASCII: use the tokenizers library");
      if (letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r') {
        finish();
      } else if (std::iscntrl(letter)) {
        continue;
      } else if (std::ispunct(letter)) {
        finish();
        append(std::string(1, static_cast<char>(letter)), ids);
      } else {
        word += static_cast<char>(lower_ ? std::tolower(letter) : letter);
      }
    }
    finish();
    if (ids.size() + 1 > most) ids.resize(most - 1);
    ids.push_back(end_);
    return ids;
  }

 private:
  // The longest pieces from the left; a word that has none is unknown as a whole.
  void append(const std::string& word, std::vector<int64_t>& ids) const {
    std::vector<int64_t> found;
    for (size_t from = 0, to = word.size(); from < word.size(); from = to, to = word.size()) {
      auto piece = ids_.end();
      for (; to > from; --to)
        if ((piece = ids_.find((from ? "##" : "") + word.substr(from, to - from))) != ids_.end()) break;
      if (to == from || word.size() > longest_) {
        found.assign(1, unknown_);
        break;
      }
      found.push_back(piece->second);
    }
    ids.insert(ids.end(), found.begin(), found.end());
  }

  std::unordered_map<std::string, int64_t> ids_;
  std::vector<std::string> added_;
  int64_t unknown_ = 0, begin_ = 0, end_ = 0;
  size_t longest_ = 100;
  bool lower_ = true;
};
