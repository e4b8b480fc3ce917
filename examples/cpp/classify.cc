// classify BUNDLE GRAPH ADAPTER TASK_JSON [exact] < lines of text > lines of label, tab, score
//
// GRAPH is a path inside the bundle, such as onnx/model_int8.onnx. TASK_JSON is what `edgetune tasks show BUNDLE TASK --json` prints.
#include <iostream>

#include "task.h"
#include "wordpiece.h"

int main(int argc, char** argv) try {
  if (argc < 5) throw std::runtime_error("expected BUNDLE GRAPH ADAPTER TASK_JSON [exact]");
  const auto told = nlohmann::json::parse(std::ifstream(argv[4]));
  const auto pooling = told.at("pooling").get<std::string>();
  if (told.at("kind") != "single-label" || told.at("pairs") == true || told.at("template") != "{text}" ||
      (pooling != "mean" && pooling != "cls"))
    throw std::runtime_error("this example is for tasks that give one label for a text, as it is, by mean or cls");
  const auto labels = told.at("labels").get<std::vector<std::string>>();
  const double temperature = told.at("temperature");
  const std::string bundle = argv[1];
  const auto manifest = nlohmann::json::parse(std::ifstream(bundle + "/edgetune.json"));
  const WordPiece tokenizer(bundle + "/tokenizer.json");
  const int before = std::max(told.at("position_offset").get<int>(), told.at("prompt_length").get<int>());
  const int most = std::min(told.at("max_length").get<int>(), manifest.at("max_positions").get<int>() - before);
  Task task(bundle + "/" + argv[2], argv[3], argc > 5 && std::string(argv[5]) == "exact");
  for (std::string text; std::getline(std::cin, text);) {
    const auto ids = tokenizer.encode(text, most);
    const int64_t end = pooling == "cls" ? 1 : static_cast<int64_t>(ids.size());
    const auto scores = softmax(task.logits(ids, 0, end), temperature);
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    std::cout << labels.at(best) << '\t' << scores[best] << '\n';
  }
} catch (const std::exception& error) {
  std::cerr << "classify: " << error.what() << '\n';
  return 1;
}
