# asyncio_programs.py FIRST COUNT [FEATURES]: small random programs of everything that tasks wait for, each with
# what happens when Python's asyncio (3.13 or later) runs it. test_asyncio_programs.c runs the same programs on
# aloop and compares.
#
# A program is a line "program BODIES STARTED PARTIES", a line "op BODY OP A B FLAGS" for each step of each body,
# and the lines "> ..." that it has to print, ended by "end". The first STARTED bodies begin as tasks; others when
# a step makes tasks of them. The steps are the methods op_NAME below, some of which open a block that goes to the
# step "close". A line "differs" says that something happened of which aloop.h says that it is not as in asyncio.
#
# Flags: 1: go on after CancelledError, 2: go on after another exception, 4: the task begins at once.
#
# Time is a clock that goes on by 1 in each turn, and no two deadlines are equal. FEATURES: a comma-separated
# choice of those in OPS, instead of a random one for each program.
import asyncio
import os
import random
import sys

TURNS = 40
FUTURES = 3
NOTHING = 99  # what a step says that finds nothing to do
OPS = {
    "futures": "yield sleep0 future future task set set fail drop shield shield_task",
    "cancel": "cancel cancel cancel uncancel cancelling",
    "time": "sleep timeout timeout reschedule waitfor waitfor_task",
    "many": "wait gather each set fail drop future wait_tasks gather_tasks",
    "group": "group group child child child yield spawn",
    "eager": "spawn spawn task yield child group",
    "lock": "acquire acquire release release locked waitfor_lock",
    "event": "event_wait event_wait event_set event_clear waitfor_event",
    "condition": "condition_acquire condition_acquire condition_wait condition_wait_for condition_release "
                 "condition_release notify notify_all event_set",
    "semaphore": "semaphore_acquire semaphore_acquire semaphore_release semaphore_value",
    "barrier": "barrier_wait barrier_wait barrier_wait barrier_reset barrier_abort",
    "queue": "put put get get put_nowait get_nowait task_done join shutdown qsize waitfor_get",
}
OPENS = ("timeout", "group")
LATER = ("task", "waitfor_task", "shield_task", "spawn", "child")  # of a higher number: no circles


class Broken(Exception):
    pass


WORDS = [
    (asyncio.CancelledError, "cancelled"), (Broken, "error"), (TimeoutError, "timeout"),
    (asyncio.BrokenBarrierError, "broken"), (asyncio.QueueShutDown, "closed"),
    (asyncio.QueueFull, "again"), (asyncio.QueueEmpty, "again"), ((RuntimeError, ValueError), "misuse"),
]


def word(error):
    for kind, text in WORDS:
        if isinstance(error, kind):
            return text
    raise error


def outcome(future):
    if future is None:
        return "none"
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return "ok" if future.exception() is None else word(future.exception())


class Limit(asyncio.Timeout):
    """The time limit of wait_for. One that comes in the turn of a result loses it here, and not in aloop."""

    def _on_timeout(self):
        waits_for = self._task._fut_waiter
        if waits_for is not None and waits_for.done():
            Program.now.differs = True
        Program.now.limits.append(self)
        super()._on_timeout()


class Called:
    """A queue that notes who was called and has not run yet: here others may be quicker, in aloop nobody."""

    def _wakeup_next(self, waiters):
        called = next((waiter for waiter in waiters if not waiter.done()), None)
        super()._wakeup_next(waiters)
        if called is not None:
            which = self.putting if waiters is self._putters else self.getting
            which[called] = next(task for task in asyncio.all_tasks() if task._fut_waiter is called)
            called.add_done_callback(which.pop)

    def look(self, which):
        Program.now.differs |= any(task is not asyncio.current_task() for task in which.values())

    def _init(self, maxsize):
        self.putting, self.getting = {}, {}
        super()._init(maxsize)

    def get_nowait(self):
        self.look(self.getting)
        return super().get_nowait()

    def put_nowait(self, item):
        self.look(self.putting)
        return super().put_nowait(item)


class Fifo(Called, asyncio.Queue):
    pass


class Lifo(Called, asyncio.LifoQueue):
    pass


class Priority(Called, asyncio.PriorityQueue):
    pass


asyncio.timeouts.timeout = lambda delay: Limit(None if delay is None else Program.now.loop.time() + delay)


class Program:
    now = None

    def __init__(self, seed, features):
        rand = random.Random(seed)
        names = features or rand.sample(sorted(OPS), rand.randint(1, 3)) + ["futures"]
        self.choice = [op for name in names for op in OPS[name].split()]
        self.bodies = [[] for _ in range(rand.randint(2, 6))]
        self.started = rand.randint(1, len(self.bodies))
        self.parties = rand.randint(1, 3)
        for number, steps in enumerate(self.bodies):
            self.fill(rand, number, steps)

    def fill(self, rand, number, steps):
        depth = 0
        for _ in range(rand.randint(1, 9)):
            op = rand.choice(self.choice)
            if op in LATER and number + 1 == len(self.bodies):
                op = "yield"
            if op in OPENS:
                depth += 1
            a = rand.randrange(60)
            if op in LATER:
                a = rand.randrange(number + 1, len(self.bodies))
            elif op in ("cancel", "uncancel", "cancelling"):
                a = rand.randrange(len(self.bodies))
            elif op in ("wait_tasks", "gather_tasks"):
                a = number
            steps.append((op, a, rand.randrange(60), rand.choice([0, 0, 1, 2, 3]) | rand.choice([0, 4])))
            if depth and rand.random() < 0.3:
                steps.append(("close", 0, 0, 0))
                depth -= 1

    def print_program(self):
        print("program", len(self.bodies), self.started, self.parties)
        for number, steps in enumerate(self.bodies):
            for step in steps:
                print("op", number, *step)

    # ---- Running

    def say(self, *words):
        if not self.over:
            print(">", *words)

    def delay(self, turns):
        """No two timers have the same deadline."""
        self.timers += 1
        return turns - 0.5 + self.timers * 0.001

    def make_task(self, loop, coro, **options):
        eager, self.eager = self.eager, False
        return asyncio.Task(coro, loop=loop, eager_start=eager, **options)

    def begin(self, number, flags, create):
        """Makes a task of a body, once."""
        if self.running[number] is not None or number in self.begun:
            return NOTHING
        self.begun.add(number)
        self.eager = bool(flags & 4)
        body = self.body(number)
        try:
            self.running[number] = create(body)
        except RuntimeError:
            body.close()
            raise
        return 0

    async def body(self, number):
        self.scopes[number] = []
        self.groups[number] = []
        await self.steps(number, 0)
        return number

    async def steps(self, number, at):
        """Runs steps to the end of the block, and returns where that is."""
        steps = self.bodies[number]
        while at < len(steps):
            op, a, b, flags = steps[at]
            if op == "close":
                return at + 1
            self.step, end = (number, at), at + 1
            try:
                if op in OPENS:
                    end = self.end_of(steps, at)
                    value = await getattr(self, "op_" + op)(number, at, a)
                else:
                    value = getattr(self, "op_" + op)(a, b, number, at, flags)
                    if asyncio.iscoroutine(value) or asyncio.isfuture(value):
                        value = await value
            except BaseException as error:
                if isinstance(error, GeneratorExit):
                    raise
                said = word(error)
                self.say(number, at, said)
                if not flags & (1 if said == "cancelled" else 2):
                    raise
            else:
                self.say(number, at, "ok", 0 if value is None or value is True or value is False else value)
            at = end
        return at

    @staticmethod
    def end_of(steps, at):
        depth = 0
        while at < len(steps):
            depth += (steps[at][0] in OPENS) - (steps[at][0] == "close")
            at += 1
            if depth == 0:
                break
        return at

    async def op_timeout(self, number, at, a):
        scope = asyncio.timeout(self.delay(a % 5) if a % 5 else -(a % 2) if a < 40 else None)
        try:
            async with scope:
                self.scopes[number].append(scope)
                await self.steps(number, at + 1)
        finally:
            self.scopes[number].pop()
            self.say(number, at, "expired", int(scope.expired()))

    async def op_group(self, number, at, a):
        group = asyncio.TaskGroup()
        try:
            async with group:
                self.groups[number].append(group)
                await self.steps(number, at + 1)
        except BaseExceptionGroup as error:
            self.say(number, at, "errors", len(error.exceptions))
            raise Broken()
        finally:
            self.groups[number].pop()

    def op_reschedule(self, a, b, number, at, flags):
        if not self.scopes[number]:
            return NOTHING
        self.scopes[number][-1].reschedule(self.time + self.delay(a % 5) if a % 5 else None)

    def op_child(self, a, b, number, at, flags):
        if not self.groups[number]:
            return NOTHING
        return self.begin(a, flags, self.groups[number][-1].create_task)

    def op_spawn(self, a, b, number, at, flags):
        return self.begin(a, flags, self.loop.create_task)

    def op_yield(self, a, b, number, at, flags):
        future = self.loop.create_future()
        self.loop.call_soon(lambda: future.done() or future.set_result(0))
        return future

    def op_sleep0(self, a, b, number, at, flags):
        return asyncio.sleep(0, 0)

    def op_sleep(self, a, b, number, at, flags):
        return asyncio.sleep(self.delay(1 + a % 4), 0)

    def op_future(self, a, b, number, at, flags):
        return self.futures[a % FUTURES]

    def op_shield(self, a, b, number, at, flags):
        return asyncio.shield(self.futures[a % FUTURES])

    def op_task(self, a, b, number, at, flags):
        return self.running[a] or NOTHING

    def op_shield_task(self, a, b, number, at, flags):
        return asyncio.shield(self.running[a]) if self.running[a] else NOTHING

    def limit(self, b):
        return self.delay(b % 5) if b % 5 else None if b < 30 else 0

    def op_waitfor(self, a, b, number, at, flags):
        return asyncio.wait_for(self.futures[a % FUTURES], self.limit(b))

    async def wait_for_task(self, task, limit):
        try:
            return await asyncio.wait_for(task, limit)
        except asyncio.CancelledError:
            self.differs |= limit == 0  # does not ask or wait for the task again here
            raise

    def op_waitfor_task(self, a, b, number, at, flags):
        return self.wait_for_task(self.running[a], self.limit(b)) if self.running[a] else NOTHING

    def op_waitfor_lock(self, a, b, number, at, flags):
        return asyncio.wait_for(self.locks[a % 2].acquire(), self.delay(1 + b % 4))

    def op_waitfor_event(self, a, b, number, at, flags):
        return asyncio.wait_for(self.events[a % 2].wait(), self.delay(1 + b % 4))

    def op_waitfor_get(self, a, b, number, at, flags):
        return asyncio.wait_for(self.queues[a % 3].get(), self.delay(1 + b % 4))

    def op_set(self, a, b, number, at, flags):
        if self.futures[a % FUTURES].done():
            return NOTHING
        self.futures[a % FUTURES].set_result(a)

    def op_fail(self, a, b, number, at, flags):
        if self.futures[a % FUTURES].done():
            return NOTHING
        self.futures[a % FUTURES].set_exception(Broken())

    def op_drop(self, a, b, number, at, flags):
        return int(self.futures[a % FUTURES].cancel())

    def op_cancel(self, a, b, number, at, flags):
        return int(self.running[a].cancel()) if self.running[a] else NOTHING

    def look_at_requests(self):
        """wait_for asks its own task to end here, for a moment; not so in aloop."""
        self.differs |= any(limit._state.value == "expiring" for limit in self.limits)

    def op_uncancel(self, a, b, number, at, flags):
        self.look_at_requests()
        return self.running[a].uncancel() if self.running[a] else NOTHING

    def op_cancelling(self, a, b, number, at, flags):
        self.look_at_requests()
        return self.running[a].cancelling() if self.running[a] else NOTHING

    def some(self, a):
        return [self.futures[i] for i in range(FUTURES) if a >> i & 1] or self.futures[:1]

    def tasks_after(self, number):
        return [task for task in self.running[number + 1:] if task]

    async def wait(self, many, b):
        how = [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION][b % 3]
        done, _ = await asyncio.wait(many, timeout=self.delay(b % 5) if b % 5 else None, return_when=how)
        return len(done)

    async def gather(self, many, b):
        outer = asyncio.gather(*many, return_exceptions=bool(b % 2))
        try:
            return len(await outer)
        except BaseException:
            self.differs |= outer._cancel_requested and len(many) > 1  # ends with the first child here
            raise

    def op_wait(self, a, b, number, at, flags):
        return self.wait(self.some(a), b)

    def op_wait_tasks(self, a, b, number, at, flags):
        return self.wait(self.tasks_after(number), b) if self.tasks_after(number) else NOTHING

    def op_gather(self, a, b, number, at, flags):
        return self.gather(self.some(a), b)

    def op_gather_tasks(self, a, b, number, at, flags):
        return self.gather(self.tasks_after(number), b) if self.tasks_after(number) else NOTHING

    async def op_each(self, a, b, number, at, flags):
        many = [future for future in self.some(a) if not future.done()]
        async for future in asyncio.as_completed(many, timeout=self.delay(b % 5) if b % 5 else None):
            self.say(number, at, "each", many.index(future))
        return len(many)

    def op_acquire(self, a, b, number, at, flags):
        return self.locks[a % 2].acquire()

    def op_release(self, a, b, number, at, flags):
        return self.locks[a % 2].release()

    def op_locked(self, a, b, number, at, flags):
        return None

    def op_event_wait(self, a, b, number, at, flags):
        return self.events[a % 2].wait()

    def op_event_set(self, a, b, number, at, flags):
        return self.events[a % 2].set()

    def op_event_clear(self, a, b, number, at, flags):
        return self.events[a % 2].clear()

    def look_at_condition(self):
        """Who was notified or cancelled and has not run yet wants the lock here, and has it in aloop."""
        called = any(waiter.done() for waiter in self.condition._waiters)
        self.differs |= called and (self.notified != self.time or not self.condition.locked())

    def op_condition_acquire(self, a, b, number, at, flags):
        self.look_at_condition()
        return self.condition.acquire()

    def op_condition_release(self, a, b, number, at, flags):
        self.look_at_condition()
        called = sum(waiter.done() for waiter in self.condition._waiters)
        self.differs |= called > 1 or called == 1 and self.notified != self.time  # a turn each, in aloop
        return self.condition.release()

    def op_condition_wait(self, a, b, number, at, flags):
        self.look_at_condition()
        return self.condition.wait()

    def op_condition_wait_for(self, a, b, number, at, flags):
        self.look_at_condition()
        return self.condition.wait_for(self.events[a % 2].is_set)

    def op_notify(self, a, b, number, at, flags):
        self.look_at_condition()
        self.notified = self.time
        return self.condition.notify(1 + a % 2)

    def op_notify_all(self, a, b, number, at, flags):
        self.look_at_condition()
        self.notified = self.time
        return self.condition.notify_all()

    def op_semaphore_acquire(self, a, b, number, at, flags):
        return self.semaphores[a % 2].acquire()

    def op_semaphore_release(self, a, b, number, at, flags):
        return self.semaphores[a % 2].release()

    def op_semaphore_value(self, a, b, number, at, flags):
        return int(self.semaphores[a % 2].locked())

    def look_at_barrier(self):
        """Until all have run a round is not over here, and who was cancelled counts; not so in aloop."""
        called = any(waiter.done() for waiter in self.barrier._cond._waiters)
        self.differs |= called or self.barrier._state.value in ("draining", "resetting")

    async def op_barrier_wait(self, a, b, number, at, flags):
        self.look_at_barrier()
        try:
            return await self.barrier.wait()
        except asyncio.CancelledError:
            self.differs |= self.barrier.n_waiting > 0  # numbers may be given twice from now on
            raise

    def op_barrier_reset(self, a, b, number, at, flags):
        self.look_at_barrier()
        return self.barrier.reset()

    def op_barrier_abort(self, a, b, number, at, flags):
        self.look_at_barrier()
        return self.barrier.abort()

    def op_put(self, a, b, number, at, flags):
        return self.queues[a % 3].put(b)

    def op_put_nowait(self, a, b, number, at, flags):
        return self.queues[a % 3].put_nowait(b)

    def op_get(self, a, b, number, at, flags):
        return self.queues[a % 3].get()

    def op_get_nowait(self, a, b, number, at, flags):
        return self.queues[a % 3].get_nowait()

    def op_task_done(self, a, b, number, at, flags):
        return self.queues[a % 3].task_done()

    def op_join(self, a, b, number, at, flags):
        return self.queues[a % 3].join()

    def op_shutdown(self, a, b, number, at, flags):
        return self.queues[a % 3].shutdown(immediate=b % 2 == 1) if b % 4 < 2 else NOTHING

    def op_qsize(self, a, b, number, at, flags):
        return self.queues[a % 3].qsize()

    # ---- From outside

    def turns(self):
        for _ in range(TURNS):
            self.time += 1
            self.loop.stop()
            self.loop.run_forever()

    def make_objects(self):
        self.futures = [self.loop.create_future() for _ in range(FUTURES)]
        self.locks = [asyncio.Lock(), asyncio.Lock()]
        self.events = [asyncio.Event(), asyncio.Event()]
        self.condition = asyncio.Condition()
        self.semaphores = [asyncio.Semaphore(1), asyncio.BoundedSemaphore(2)]
        self.barrier = asyncio.Barrier(self.parties)
        self.queues = [Fifo(1), Lifo(2), Priority(2)]

    def run(self):
        self.print_program()
        Program.now, self.differs = self, False
        self.over, self.time, self.timers, self.eager = False, 1000, 0, False
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self.time
        self.loop.set_exception_handler(lambda loop, context: None)
        asyncio.set_event_loop(self.loop)
        self.loop.set_task_factory(self.make_task)
        self.running, self.begun = [None] * len(self.bodies), set()
        self.scopes, self.groups, self.notified, self.limits = {}, {}, 0, []
        self.make_objects()
        for number in range(self.started):
            self.begin(number, 0, self.loop.create_task)
        self.turns()
        for number, task in enumerate(self.running):
            if task:
                self.say("cancel", number, int(task.cancel()))
        self.turns()
        for future in self.futures:
            future.cancel()
        self.turns()
        self.look_at_requests()
        for task in self.running:
            self.say("task", outcome(task), task.cancelling() if task else 0)
        if self.differs:
            print("differs")
        print("end")
        self.over = True
        self.loop.close()


programs = []  # what still waits must not be collected while others run
for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
    programs.append(Program(seed, sys.argv[3].split(",") if len(sys.argv) > 3 and sys.argv[3] else None))
    programs[-1].run()
sys.stdout.flush()
os._exit(0)
