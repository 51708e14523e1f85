/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A shop's backend as C++ programs are: maps of strings, vectors that grow, owned objects
 * behind base classes, streams; all of it new and delete of a shared library.
 */
#include "load_store.h"

#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace
{

struct Line {
	virtual ~Line() = default;
	virtual double price() const = 0;
	virtual std::string text() const = 0;
};

struct Article : Line {
	Article(std::string name, double each, int count)
		: name_(std::move(name)), each_(each), count_(count)
	{
	}
	double price() const override { return each_ * count_; }
	std::string text() const override { return name_ + " x " + std::to_string(count_); }

private:
	std::string name_;
	double each_;
	int count_;
};

using Order = std::vector<std::unique_ptr<Line>>;
using Headers = std::map<std::string, std::string>;

std::unordered_map<unsigned long, std::string> pages;
constexpr unsigned long page_limit = 512;

Headers parse(unsigned long number)
{
	Headers headers;

	headers["host"] = "shop.example";
	headers["user-agent"] = "bench/" + std::to_string(number % 7) + " of a length beyond inline";
	headers["accept-language"] = "de-CH, de;q=0.9, en;q=0.8, *;q=0.5";
	headers["cookie"] = "session=" + std::to_string(number) + "; theme=dark; consent=none";
	return headers;
}

Order make_order(unsigned long number)
{
	Order order;

	for (int i = 0; i < 8; i++)
		order.push_back(std::make_unique<Article>(
			"article with a long name " + std::to_string(number + i), 1.25 * i, i));
	return order;
}

std::string render(const Headers &headers, const Order &order)
{
	std::ostringstream page;
	double total = 0;

	for (const auto &header : headers)
		page << header.first << ": " << header.second << '\n';
	for (const auto &line : order) {
		page << line->text() << '\n';
		total += line->price();
	}
	page << total;
	return page.str();
}

}

unsigned long store_handle(unsigned long number)
{
	std::string page = render(parse(number), make_order(number));
	unsigned long size = page.size();

	pages[number * 2654435761UL % page_limit] = std::move(page);
	return size;
}
