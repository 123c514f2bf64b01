# asyncio_model.py FIRST COUNT: small random programs of tasks and futures, each with what happens when Python's asyncio
# runs it. test_asyncio_model.c runs the same programs on aloop and compares.
#
# A program is a line "program TASKS FUTURES", a line "op TASK OP ARGUMENT FLAGS" for each step of each task, and the
# lines "> ..." that it has to print, ended by "end". The steps:
#
#   yield      await a future that a callback of the next turn sets
#   future N   await future N                    task N    await task N (only of a higher number: no circles)
#   shield N   await shield(future N)
#   set N, fail N, drop N                        set_result, set_exception, cancel of future N
#   cancel N, uncancel N                         of task N
#
# Flags: 1: go on after CancelledError, 2: go on after another exception.
import asyncio
import asyncio.tasks
import random
import sys

TURNS = 60
AWAITS = ["yield", "future", "task", "shield"]
CALLS = ["set", "fail", "drop", "cancel", "cancel", "cancel", "uncancel"]


class Task(asyncio.tasks._PyTask):
    """As of Python 3.13: the last uncancel takes back a request that was not delivered yet."""

    def uncancel(self):
        left = super().uncancel()
        if left == 0:
            self._must_cancel = False
        return left


class Broken(Exception):
    pass


def outcome(future):
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return "ok" if future.exception() is None else "error"


class Program:
    def __init__(self, seed):
        rand = random.Random(seed)
        self.tasks = [[] for _ in range(rand.randint(1, 5))]
        self.count = rand.randint(1, 3)
        for number, steps in enumerate(self.tasks):
            for _ in range(rand.randint(1, 7)):
                op = rand.choice(AWAITS if rand.random() < 0.5 else CALLS)
                if op == "task" and number + 1 == len(self.tasks):
                    op = "yield"
                if op == "task":
                    arg = rand.randrange(number + 1, len(self.tasks))
                elif op in ("cancel", "uncancel"):
                    arg = rand.randrange(len(self.tasks))
                else:
                    arg = rand.randrange(self.count)
                steps.append((op, arg, rand.choice([0, 0, 1, 2, 3])))

    def print(self):
        print("program", len(self.tasks), self.count)
        for number, steps in enumerate(self.tasks):
            for op, arg, flags in steps:
                print("op", number, op, arg, flags)

    def awaitable(self, op, arg):
        if op == "yield":
            future = self.loop.create_future()
            self.loop.call_soon(lambda: future.done() or future.set_result(0))
            return future
        if op == "task":
            return self.running[arg]
        return self.futures[arg] if op == "future" else asyncio.shield(self.futures[arg])

    def call(self, op, arg):
        if op == "cancel":
            return int(self.running[arg].cancel())
        if op == "uncancel":
            return self.running[arg].uncancel()
        future = self.futures[arg]
        if op == "drop":
            return int(future.cancel())
        if future.done():
            return 0
        if op == "set":
            future.set_result(0)
        else:
            future.set_exception(Broken())
        return 1

    async def body(self, number):
        for index, (op, arg, flags) in enumerate(self.tasks[number]):
            if op not in AWAITS:
                print(">", number, index, self.call(op, arg))
                continue
            said = "ok"
            try:
                await self.awaitable(op, arg)
            except asyncio.CancelledError:
                said = "cancelled"
                if not flags & 1:
                    raise
            except Broken:
                said = "error"
                if not flags & 2:
                    raise
            finally:
                print(">", number, index, said)

    def turns(self):
        for _ in range(TURNS):
            self.loop.stop()
            self.loop.run_forever()

    def run(self):
        self.print()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None)
        asyncio.set_event_loop(self.loop)
        self.loop.set_task_factory(lambda loop, coro, **options: Task(coro, loop=loop, **options))
        self.futures = [self.loop.create_future() for _ in range(self.count)]
        self.running = []
        for number in range(len(self.tasks)):
            self.running.append(self.loop.create_task(self.body(number)))
        self.turns()
        for task in self.running:
            print("> cancel", int(task.cancel()))
        self.turns()
        for future in self.futures:
            future.cancel()
        self.turns()
        for task in self.running:
            print(">", outcome(task), task.cancelling())
        print("end")
        self.loop.close()


for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
    Program(seed).run()
