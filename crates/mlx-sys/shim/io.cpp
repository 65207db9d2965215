// Files of tensors, and the maps that they and the devices answer with.
#include "shim.h"

#include <type_traits>
#include <unordered_map>
#include <variant>

namespace {

mlxs_entry array_entry(const std::string& name, const mx::array& array) {
  return mlxs_entry{name, array, {}, false};
}

mlxs_entry text_entry(const std::string& name, const std::string& text) {
  return mlxs_entry{name, std::nullopt, {text}, false};
}

mlxs_entry entry(const std::string& name, const mx::GGUFMetaData& value) {
  if (auto array = std::get_if<mx::array>(&value)) {
    return array_entry(name, *array);
  }
  if (auto text = std::get_if<std::string>(&value)) {
    return text_entry(name, *text);
  }
  mlxs_entry out{name, std::nullopt, {}, true};
  if (auto texts = std::get_if<std::vector<std::string>>(&value)) {
    out.strings = *texts;
  }
  return out;
}

// Hands over both maps, or neither.
template <class Loaded, class ToEntry>
void give_loaded(
    const Loaded& loaded,
    mlxs_map** arrays,
    mlxs_map** metadata,
    ToEntry to_entry) {
  auto first = std::make_unique<mlxs_map>();
  auto second = std::make_unique<mlxs_map>();
  for (const auto& [name, array] : loaded.first) {
    first->entries.push_back(array_entry(name, array));
  }
  for (const auto& [name, value] : loaded.second) {
    second->entries.push_back(to_entry(name, value));
  }
  shim::sort_by_name(*first);
  shim::sort_by_name(*second);
  *arrays = first.release();
  *metadata = second.release();
}

} // namespace

extern "C" {

size_t mlxs_map_len(const mlxs_map* map) {
  return map->entries.size();
}

const char* mlxs_map_name(const mlxs_map* map, size_t index, size_t* len) {
  const auto& name = map->entries[index].name;
  *len = name.size();
  return name.data();
}

// Sets `*out` to null if the entry is no array.
int32_t mlxs_map_array(mlxs_array** out, const mlxs_map* map, size_t index) {
  return shim::guard([&] {
    const auto& array = map->entries.at(index).array;
    *out = array ? new mx::array(*array) : nullptr;
  });
}

bool mlxs_map_is_list(const mlxs_map* map, size_t index) {
  return map->entries[index].is_list;
}

size_t mlxs_map_num_strings(const mlxs_map* map, size_t index) {
  return map->entries[index].strings.size();
}

const char* mlxs_map_string(
    const mlxs_map* map,
    size_t index,
    size_t which,
    size_t* len) {
  const auto& text = map->entries[index].strings[which];
  *len = text.size();
  return text.data();
}

void mlxs_map_free(mlxs_map* map) {
  shim::guard([&] { delete map; });
}

int32_t mlxs_load_safetensors(
    mlxs_map** arrays,
    mlxs_map** metadata,
    const char* path,
    size_t path_len) {
  return shim::guard([&] {
    give_loaded(
        mx::load_safetensors(shim::text(path, path_len)),
        arrays,
        metadata,
        text_entry);
  });
}

int32_t mlxs_load_gguf(
    mlxs_map** arrays,
    mlxs_map** metadata,
    const char* path,
    size_t path_len) {
  return shim::guard([&] {
    give_loaded(
        mx::load_gguf(shim::text(path, path_len)), arrays, metadata, entry);
  });
}

// Keys and texts come as pointers with lengths, in four parallel lists.
int32_t mlxs_save_safetensors(
    const char* path,
    size_t path_len,
    const char* const* names,
    const size_t* name_lens,
    const mlxs_array* const* arrays,
    size_t num_arrays,
    const char* const* texts,
    const size_t* text_lens,
    size_t num_pairs) {
  return shim::guard([&] {
    std::unordered_map<std::string, mx::array> tensors;
    for (size_t i = 0; i < num_arrays; ++i) {
      tensors.emplace(shim::text(names[i], name_lens[i]), *arrays[i]);
    }
    std::unordered_map<std::string, std::string> metadata;
    for (size_t i = 0; i < num_pairs; ++i) {
      metadata.emplace(
          shim::text(texts[2 * i], text_lens[2 * i]),
          shim::text(texts[2 * i + 1], text_lens[2 * i + 1]));
    }
    mx::save_safetensors(shim::text(path, path_len), tensors, metadata);
  });
}

int32_t mlxs_device_info(mlxs_map** out) {
  return shim::guard([&] {
    auto map = std::make_unique<mlxs_map>();
    for (const auto& [name, value] : mx::device_info()) {
      auto text = std::visit(
          [](const auto& v) -> std::string {
            if constexpr (std::is_same_v<
                              std::decay_t<decltype(v)>,
                              std::string>) {
              return v;
            } else {
              return std::to_string(v);
            }
          },
          value);
      map->entries.push_back(text_entry(name, text));
    }
    shim::sort_by_name(*map);
    *out = map.release();
  });
}

} // extern "C"
