"""The console in headless Chromium, against a running server with a small model.

    python console.py http://127.0.0.1:30000 [FOLDER_FOR_SCREENSHOTS [KEY]]

With the server's `--api-key` as KEY, only that the page asks for it is checked. Needs what `devtools.py` needs. Prints one line for each check, and fails at the first that does not hold.
"""

import asyncio
import sys
from pathlib import Path

from devtools import ALT, Browser

ANSWERED = "!document.querySelector('.is-live') && document.querySelector('.answer:last-child .timing, .answer:last-child .error')"
TEXT = "document.querySelector('.answer:last-child > .markdown').innerText"

# Text that would act if it became markup, and all that Markdown has.
HOSTILE = r"""
<img src=x onerror="window.hurt = 1"> <script>window.hurt = 1</script>
[a](javascript:window.hurt=1) [b](data:text/html,x) https://example.com/<b>
# One
**bold** _em_ `code` ~~gone~~
1. first
   - inner
2. second

> quoted

| a | b |
|---|---|
| 1 | <i>2</i> |

```html
<script>window.hurt = 1</script>
"""

# Contrast of every text that can be seen with what is behind it, below what WCAG 2.2 (1.4.3) asks for.
CONTRAST = r"""(() => {
  const parse = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    if (text.startsWith("color(")) return [...numbers.slice(0, 3).map((part) => 255 * part), numbers[3] ?? 1];
    return [...numbers.slice(0, 3), numbers[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const isShown = walker.currentNode.data.trim() && element.checkVisibility({ visibilityProperty: true });
    if (!isShown || element.closest(".hidden, .skip, option, noscript")) continue;
    const style = getComputedStyle(element);
    const behind = ground(element);
    const [a, b] = [light(over(parse(style.color), behind)), light(behind)].sort((x, y) => y - x);
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()"""

NAMED_ROLES = {"button", "textbox", "searchbox", "combobox", "slider", "spinbutton", "tab", "link", "image", "dialog",
               "region", "complementary", "navigation", "tabpanel", "tablist", "heading", "list"}


def check(name, holds, *seen):
    print(f"{'ok  ' if holds else 'FAIL'} {name}", *seen, flush=True)
    if not holds:
        sys.exit(1)


class Console:
    """The page, and where its pictures go."""

    def __init__(self, page, base_url, folder):
        self.page, self.base_url, self.folder = page, base_url, folder

    async def picture(self, name):
        if self.folder:
            await self.page.screenshot(self.folder / f"{name}.png")

    async def set(self, field, value):
        await self.page.eval(f"document.getElementById('set-{field}').focus(), document.activeElement.select()")
        if value:
            await self.page.type(value)
        else:
            await self.page.eval("document.activeElement.value = ''")
        await self.page.eval("document.activeElement.dispatchEvent(new Event('change'))")

    async def say(self, text):
        await self.page.key("m", ALT)
        await self.page.type(text)
        await self.page.key("Enter")

    async def load(self):
        await self.page.media(prefers_color_scheme="light")
        await self.page.open(f"{self.base_url}/")
        await self.page.until("document.querySelector('.dot.ok')")
        check("the page loads and names its model", await self.page.eval("document.getElementById('welcome-model').textContent !== 'Console'"),
              await self.page.eval("document.title"))
        check("the box has the focus", await self.page.eval("document.activeElement.id === 'prompt'"))
        await self.picture("welcome")

    async def unlock(self, key):
        page = self.page
        await page.open(f"{self.base_url}/")
        await page.until("document.getElementById('key-dialog').open", 10)
        await self.picture("key")
        await page.type("not the key")
        await page.key("Enter")
        await page.until("document.getElementById('key-dialog').open && document.getElementById('key-note').textContent.includes('did not take')", 10)
        check("a wrong key is asked for again", True)
        await page.type(key)
        await page.key("Enter")
        await page.until("document.querySelector('.dot.ok')", 10)
        kept = await page.eval("[sessionStorage.getItem('sglang.key'), Object.values(localStorage).join()]")
        check("the right one opens the page, and is kept in the tab only", key in kept[0] and key not in kept[1])
        await page.open(f"{self.base_url}/")
        await page.until("document.querySelector('.dot.ok')", 10)
        check("a reload does not ask", not await page.eval("document.getElementById('key-dialog').open"))
        await self.set("max_completion_tokens", "1")
        await self.say("Hello")
        await page.until(ANSWERED, 300)
        check("answers come with the key", await page.eval("document.querySelector('.error') === null"))

    async def chat_by_keyboard(self):
        page = self.page
        await self.set("max_completion_tokens", "8")
        await self.set("temperature", "0")
        await self.say("Say a few words about the sea.")
        await page.until(ANSWERED, 300)
        first = await page.eval(TEXT)
        check("an answer comes", first.strip() != "", repr(first))
        timing = await page.eval("document.querySelector('.timing').textContent")
        check("with its latency", "first token" in timing and "8 out" in timing and "cut at the limit" in timing, timing)
        await page.key("r", ALT)
        await page.until(ANSWERED, 300)
        check("the same is made again, greedily", await page.eval(TEXT) == first)
        await page.key("m", ALT)
        await page.key("ArrowUp")
        check("the last message opens for editing", await page.eval("document.activeElement.closest('.edit') !== null"))
        await page.eval("document.activeElement.select()")
        await page.type("Count from one to ten.")
        await page.key("Enter")
        await page.until(ANSWERED, 300)
        spoken = await page.eval("[...document.querySelectorAll('.bubble')].map((bubble) => bubble.textContent)")
        check("and is answered anew", spoken == ["Count from one to ten."], spoken)
        await self.picture("chat")

    async def stop(self):
        page = self.page
        await self.set("max_completion_tokens", "")
        await self.say("Tell a long story.")
        await page.until(f"document.querySelector('.is-live') && {TEXT}.length > 3", 300)
        early = await page.eval(f"{TEXT}.length")
        await page.until(f"{TEXT}.length > {early}", 120)
        check("the answer grows as it comes", True)
        await page.key("Escape")
        await page.until(ANSWERED, 10)
        check("Escape stops it", "stopped" in await page.eval("document.querySelector('.answer:last-child .timing').textContent"))
        await page.until("document.querySelectorAll('.values')[1].textContent.startsWith('0 running')", 60)
        check("and the server hears of it", True)

    async def refusals(self):
        page = self.page
        await self.set("max_completion_tokens", "4")
        await self.set("top_p", "2")
        await self.say("Hello")
        await page.until(ANSWERED, 60)
        said = await page.eval("document.querySelector('.answer:last-child .error').textContent")
        check("a refusal is shown with its status", "400" in said and "top_p" in said, said)
        page.problems[:] = [problem for problem in page.problems if "400 (Bad Request)" not in problem]
        await self.set("top_p", "")
        await page.eval("document.getElementById('set-json_schema').value = '{', document.getElementById('set-json_schema').dispatchEvent(new Event('input'))")
        check("what is no JSON is marked", await page.eval("document.getElementById('set-json_schema').getAttribute('aria-invalid')") == "true")
        await page.eval("document.getElementById('set-json_schema').value = '', document.getElementById('set-json_schema').dispatchEvent(new Event('input'))")

    async def markdown(self):
        found = await self.page.eval(f"""(async () => {{
          const {{ MarkdownView }} = await import('/console/markdown.js');
          const place = document.createElement('div');
          document.body.append(place);
          const view = new MarkdownView(place);
          const text = {HOSTILE!r};
          for (let end = 1; end <= text.length; end += 1) view.update(text.slice(0, end));
          const whole = document.createElement('div');
          new MarkdownView(whole).update(text);
          const tags = new Set([...place.querySelectorAll('*')].map((node) => node.localName));
          const links = [...place.querySelectorAll('a')].map((link) => link.href);
          const same = place.innerHTML === whole.innerHTML;
          place.remove();
          return {{ tags: [...tags], links, same, hurt: window.hurt ?? null }};
        }})()""")
        tags = set(found["tags"])
        check("model text stays text", not tags & {"img", "script", "i", "b"} and found["hurt"] is None, sorted(tags))
        check("Markdown has its elements", {"strong", "em", "code", "del", "ol", "ul", "blockquote", "table", "pre", "h3"} <= tags)
        check("links lead to the web only", found["links"] == ["https://example.com/"], found["links"])
        check("a text in pieces looks like the whole", found["same"])

    async def tool_calls(self):
        found = await self.page.eval("""(async () => {
          const { viewOf } = await import('/console/messages.js');
          const message = { role: 'assistant', content: '', reasoning: 'Hm.', isLive: false, awaitsResults: true, finish: 'tool_calls',
            toolCalls: [{ id: 'call_1', name: 'get_weather', arguments: '{"city":"Bern"}' }] };
          let answered = null;
          const view = viewOf(message, { answerCalls: (_, results) => { answered = results; } });
          document.getElementById('messages').append(view.element);
          view.element.querySelector('textarea').value = 'sunny';
          view.element.querySelector('form').requestSubmit();
          const text = view.element.textContent;
          const label = view.element.querySelector('textarea').getAttribute('aria-label');
          const isFolded = !view.element.querySelector('.reasoning').open;
          view.element.remove();
          return { answered, text, label, isFolded };
        })()""")
        check("a tool call shows its arguments and takes a result",
              found["answered"] == ["sunny"] and '"city": "Bern"' in found["text"] and found["label"] == "Result of get_weather")
        check("reasoning is folded", found["isFolded"])

    async def plots(self):
        page = self.page
        await page.until("[...document.querySelectorAll('.plot .line.series-0')].every((line) => line.getAttribute('d').includes('L'))", 30)
        labels = await page.eval("[...document.querySelectorAll('.plot svg')].map((plot) => plot.getAttribute('aria-label'))")
        check("the plots are drawn", len(labels) == 4, labels)
        figures = await page.eval("document.getElementById('answer-figures').innerText")
        check("the chat's latency is there", "ms" in figures or " s" in figures, figures.split("\n"))
        await page.key("p", ALT)
        await asyncio.sleep(1.5)
        page.requests.clear()
        await asyncio.sleep(3)
        check("nothing is asked for while the panel is hidden", page.requests == [], page.requests)
        await page.key("p", ALT)
        await page.until("!document.getElementById('panel').inert", 5)

    async def accessibility(self):
        page = self.page
        for dialog in ("help-dialog", None):
            if dialog:
                await page.key("/", ALT)
                await page.until(f"document.getElementById('{dialog}').open", 5)
            nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
            bare = [node["role"]["value"] for node in nodes if not node.get("ignored") and node["role"]["value"] in NAMED_ROLES
                    and not node.get("name", {}).get("value") and node["role"]["value"] != "list"]
            check(f"every control has a name{' (dialog)' if dialog else ''}", bare == [], bare)
            if dialog:
                await page.key("Escape")
                await page.until(f"!document.getElementById('{dialog}').open", 5)
        await page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
        for theme in ("light", "dark"):
            await page.media(prefers_color_scheme=theme, prefers_reduced_motion="reduce")
            for tab in ("sampling", "system", "tools"):
                await page.eval(f"document.getElementById('tab-{tab}').click()")
                low = await page.eval(CONTRAST)
                check(f"contrast, {theme}, {tab}", low == [], low)
            await page.eval("document.getElementById('tab-sampling').click()")
            await self.picture(f"chat-{theme}")
        check("motion is reduced where that is asked for", await page.eval(
            "document.getElementById('theme').click(), document.getAnimations().length") == 0)
        await page.eval("document.getElementById('theme').click(), document.getElementById('theme').click()")

    async def focus_order(self):
        page = self.page
        await page.open(f"{self.base_url}/")
        await page.until("document.querySelector('.dot.ok')")
        check("a reload keeps the chat", await page.eval("document.querySelectorAll('.message').length") > 0)
        first = "document.querySelector('a, button, input, textarea, select, [tabindex]')"
        check("the way past the bar comes first", await page.eval(f"{first}.focus(), document.activeElement.className") == "skip")
        order = []
        for _ in range(60):
            await page.key("Tab")
            place = await page.eval("document.activeElement.id || document.activeElement.className || document.activeElement.localName")
            order.append(place)
            if place == "set-json_schema":
                break
        wanted = ["new-chat", "theme", "help", "toggle-panel", "scroller", "prompt", "send", "tab-sampling", "set-temperature", "set-seed"]
        places = [order.index(place) if place in order else -1 for place in wanted]
        check("Tab goes from the bar to the chat to the panel", -1 not in places and places == sorted(places), order)
        await page.eval("document.getElementById('tab-sampling').focus()")
        await page.key("ArrowRight")
        check("arrows go through tabs", await page.eval("!document.getElementById('system').hidden && document.activeElement.id === 'tab-system'"))

    async def narrow(self):
        page = self.page
        await page.media(width=390, height=844, scale=2, prefers_color_scheme="light")
        await page.until("document.getElementById('panel').inert", 5)
        check("nothing is wider than a phone", await page.eval("document.documentElement.scrollWidth <= innerWidth"))
        await self.picture("phone")
        await page.key("p", ALT)
        await page.until("!document.getElementById('panel').inert", 5)
        await self.picture("phone-panel")
        await page.key("Escape")
        await page.until("document.getElementById('panel').inert", 5)
        await page.media(prefers_color_scheme="light")
        await page.key("n", ALT)
        check("a new chat is empty", await page.eval("document.querySelectorAll('.message').length") == 0)


async def main(base_url, folder, key):
    async with Browser() as page:
        console = Console(page, base_url, folder)
        if key:
            await console.unlock(key)
            return
        for part in (console.load, console.chat_by_keyboard, console.stop, console.refusals, console.markdown, console.tool_calls,
                     console.plots, console.accessibility, console.focus_order, console.narrow):
            before = len(page.requests)
            await part()
            elsewhere = [url for url in page.requests[before:] if not url.startswith(base_url)]
            check(f"{part.__name__}: no errors, no other host", page.problems == [] and elsewhere == [], page.problems, elsewhere)


if __name__ == "__main__":
    where = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if where:
        where.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(sys.argv[1].rstrip("/"), where, sys.argv[3] if len(sys.argv) > 3 else None))
