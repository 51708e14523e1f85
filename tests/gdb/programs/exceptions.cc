// SPDX-License-Identifier: GPL-2.0-or-later
// Allocations while exceptions fly, and through the C++ library.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "leak.h"

static volatile int zero;

struct Guard {
	unsigned k;
	explicit Guard(unsigned k_) : k(k_)
	{
	}
	NOINLINE ~Guard()
	{
		LEAK(k);
	}
};

NOINLINE static void thrower(int n)
{
	Guard g(1);
	std::string s(static_cast<size_t>(n), 'x');
	throw std::runtime_error(s);
}

NOINLINE static int in_catch(int n)
{
	try {
		Guard g(2);
		thrower(n);
	} catch (const std::exception &e) {
		leak_sink = new char[LEAK_SIZE(3)];
		AFTER();
		return e.what()[0];
	}
	return 0;
}

NOINLINE static void nested()
{
	try {
		in_catch(30 + zero);
		throw 5;
	} catch (int) {
		try {
			Guard g(4);
			throw;
		} catch (...) {
			leak_sink = new char[LEAK_SIZE(5)];
			AFTER();
		}
	}
}

struct Base {
	virtual ~Base()
	{
	}
	virtual void act(unsigned k) = 0;
};

struct Left : virtual Base {
	NOINLINE void act(unsigned k) override
	{
		LEAK(k);
	}
};

struct Right : virtual Base {
	int pad[10] = {};
};

// act through a Right or Base pointer passes a thunk.
struct Both : Right, Left {
	NOINLINE void act(unsigned k) override
	{
		Left::act(k);
		LEAK(k + 1);
	}
};

NOINLINE static void containers()
{
	auto v = new std::vector<char>;
	v->reserve(LEAK_SIZE(10));
	leak_sink = v;
	auto s = new std::string(LEAK_SIZE(11), 'x');
	leak_sink = s;
	std::function<void(unsigned)> f = [](unsigned k) { LEAK(k); };
	f(12);
	std::vector<int> w(100);
	bool done = false;
	for (int i = 0; i < 100; i++)
		w[static_cast<size_t>(i)] = (i * 37) % 100;
	std::sort(w.begin(), w.end(), [&](int a, int b) {
		if (!done)
			LEAK(13);
		done = true;
		return a < b;
	});
	std::shared_ptr<Guard> p(new Guard(14), [](Guard *g) { delete g; });
	p.reset();
}

struct Global {
	Global()
	{
		LEAK(20);
	}
	~Global()
	{
		LEAK(21);
	}
};
static Global global;

static void in_thread()
{
	try {
		thread_local Guard at_end(31);
		leak_sink = &at_end;
		LEAK(30);
		in_catch(3);
	} catch (...) {
	}
}

int main()
{
	std::unique_ptr<Base> b(new Both);

	in_catch(40 + zero);
	nested();
	b->act(6);
	containers();
	std::thread(in_thread).join();
	return 0;
}
