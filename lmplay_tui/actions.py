"""Everything that can be done in the workbench, named once: keys, footer, help and command palette are read from here.

An action's id is `<place>.<name>`: the place is the widget or screen whose method `action_<name>` does it, `app` is
everywhere. A keymap file gives other keys to an id (`keymap.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType

FORBIDDEN_KEYS = frozenset(f"ctrl+{key}" for key in ("m", "i", "j", "h", "left_square_bracket", "enter", "s", "q", "b"))
"""Terminals, tmux and flow control eat these: nothing may depend on them."""


@dataclass(frozen=True)
class Action:
    """`footer` orders the actions in the line at the bottom; None keeps it out of there, help and palette have it."""

    id: str
    keys: str
    title: str
    help: str
    footer: int | None = None
    do: str = ""
    """The action as Textual calls it, where it isn't the id's name: with arguments, or of another place."""
    changes: bool = False
    """Changes something outside of the screen: not offered with --readonly."""
    first: bool = False
    """Done before the widget in focus is asked, in dialogs too, which no other key of the application reaches."""

    @property
    def place(self) -> str:
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        return self.id.partition(".")[2]

    @property
    def action(self) -> str:
        return self.do or self.name


A = Action

SCREENS = (
    # (mode, title, title on a narrow screen)
    ("experiments", "Experiments", "Exps"),
    ("launch", "Launch", "Launch"),
    ("runs", "Runs", "Runs"),
    ("run", "Run", "Run"),
    ("compare", "Compare", "Cmp"),
    ("chat", "Chat", "Chat"),
    ("data", "Data", "Data"),
)

ACTIONS: tuple[Action, ...] = (
    # ---- everywhere ------------------------------------------------------------------------------------------------
    *(
        A(f"app.{mode}", str(number), title, f"Go to {title}.", do=f"app.show('{mode}')")
        for number, (mode, title, _) in enumerate(SCREENS, 1)
    ),
    A(
        "app.palette",
        "ctrl+p,colon",
        "Commands",
        "Find any command, run or experiment by name.",
        91,
        "app.command_palette",
    ),
    A("app.help", "f1,question_mark", "Help", "Explain the widget in focus and list every key that works here.", 90),
    A("app.jump", "ctrl+o", "Jump", "Label every pane with a letter; that letter goes there.", 92),
    A("app.quit", "q", "Quit", "Leave the workbench. Runs go on; which ones is said on leaving.", 99),
    A(
        "app.no_interrupt",
        "ctrl+c",
        "Copy",
        "Copy what is selected, or what is in focus. Never touches training.",
    ),
    A("app.theme", "f9", "Next theme", "Change to the next theme; the palette lists them all."),
    A("app.picture", "f12", "Picture", "Save the screen as an SVG picture in the current folder."),
    A("app.focus_next", "tab", "Next pane", "Go to the next pane.", do="app.focus_next", first=True),
    A(
        "app.focus_previous",
        "shift+tab",
        "Previous pane",
        "Go to the pane before.",
        do="app.focus_previous",
        first=True,
    ),
    # ---- lists -----------------------------------------------------------------------------------------------------
    A("grid.up", "up,k", "Up", "To the row above."),
    A("grid.down", "down,j", "Down", "To the row below."),
    A("grid.page_up", "pageup,ctrl+u", "Page up", "One page up."),
    A("grid.page_down", "pagedown,ctrl+d", "Page down", "One page down."),
    A("grid.first", "home,g", "First", "To the first row."),
    A("grid.last", "end,G", "Last", "To the last row."),
    A("grid.choose", "enter", "Open", "Open what the cursor is on.", 1),
    # ---- panes beside each other -----------------------------------------------------------------------------------
    A("split.left", "ctrl+left", "Border left", "Move the border between the panes to the left."),
    A("split.right", "ctrl+right", "Border right", "Move the border between the panes to the right."),
    A("split.up", "ctrl+up", "Border up", "Move the border between the panes up."),
    A("split.down", "ctrl+down", "Border down", "Move the border between the panes down."),
    # ---- charts ----------------------------------------------------------------------------------------------------
    A("chart.left", "left", "Crosshair left", "Move the crosshair one column to the left."),
    A("chart.right", "right", "Crosshair right", "Move the crosshair one column to the right."),
    A("chart.far_left", "shift+left", "Far left", "Move the crosshair ten columns to the left."),
    A("chart.far_right", "shift+right", "Far right", "Move the crosshair ten columns to the right."),
    A("chart.zoom_in", "plus,equals_sign,up", "Zoom in", "Show less of the x axis, around the crosshair.", 20),
    A("chart.zoom_out", "minus,down", "Zoom out", "Show more of the x axis.", 21),
    A("chart.pan_left", "less_than_sign,comma", "Pan left", "Show what is to the left."),
    A("chart.pan_right", "greater_than_sign,full_stop", "Pan right", "Show what is to the right."),
    A("chart.reset", "r,escape", "Reset", "All of the curve again, without crosshair.", 24),
    A("chart.log_y", "y", "Log y", "Logarithmic or linear y axis.", 22),
    A("chart.log_x", "Y", "Log x", "Logarithmic or linear x axis."),
    A("chart.x_axis", "x", "X axis", "Steps, samples, tokens or time on the x axis.", 23),
    A("chart.smooth", "s", "Smoothing", "Smooth over more rows; after the most, not at all.", 25),
    A("chart.less_smooth", "a", "Less smoothing", "Smooth over fewer rows."),
    A("chart.fix", "f", "Fix limits", "Keep the limits of the y axis as they are, or let them follow the data."),
    A("chart.limits", "F", "Limits", "Type the limits of the y axis; nothing lets them follow the data."),
    A("chart.signs", "b", "Signs", "Draw with braille, with blocks, or with ASCII characters only."),
    A("chart.full", "z", "Full pane", "This chart alone on the whole screen, and back.", 26),
    A("chart.metric", "m", "Figure", "Choose which logged figure this chart shows.", 27),
    A("chart.export", "w", "Write", "Write what is shown as CSV, and as PNG where matplotlib is installed.", 28),
    # ---- 1 experiments ---------------------------------------------------------------------------------------------
    A("experiments.filter", "slash", "Filter", "Type a part of a name, family or description.", 10),
    A("experiments.check", "c", "Check", "Ask whether the model is sound; results come in one by one.", 2),
    A("experiments.stop_check", "C", "Stop checks", "End the checks that are running."),
    A("experiments.tiny", "t", "Tiny", "Check the model scaled down, in seconds, or in its own size.", 5),
    A("experiments.launch", "l", "Launch", "Set up a run of this experiment.", 3, changes=True),
    A("experiments.new", "n", "New", "Copy this experiment under a new name and open it in $EDITOR.", 4, changes=True),
    A("experiments.edit", "e", "Edit", "Open the experiment's model in $EDITOR.", 9, changes=True),
    A("experiments.deeper", "right_square_bracket", "Deeper", "Show more levels of the table of layers.", 12),
    A("experiments.shallower", "left_square_bracket", "Shallower", "Show fewer levels of the table of layers.", 11),
    A("experiments.sort_layers", "o", "Sort layers", "Layers by their parameters, or in the order of the model.", 13),
    A("experiments.more_rows", "M", "Mini-batch x2", "Estimate the memory for twice as many rows at once."),
    A("experiments.fewer_rows", "m", "Mini-batch /2", "Estimate the memory for half as many rows at once."),
    A("experiments.view", "v", "View", "Go on to the next view: overview, layers, checks, gradients.", 6),
    A("experiments.renew", "R", "Renew", "Look for experiments again."),
    # ---- 3 runs ----------------------------------------------------------------------------------------------------
    A("runs.filter", "slash", "Filter", "For example: exp:gpt2ish loss<4 -tag:old lr>=1e-3 state:running", 10),
    A("runs.mark", "space", "Mark", "Mark this run for a comparison, or take the mark away.", 2),
    A("runs.baseline", "b", "Baseline", "Compare the marked runs with this one.", 6),
    A("runs.compare", "c", "Compare", "Go to the comparison of the marked runs.", 5),
    A("runs.chat", "M", "Chat", "Talk to the newest checkpoint of this run.", 7),
    A("runs.sort", "o", "Sort", "Sort by the next column.", 8),
    A("runs.reverse", "O", "Reverse", "Turn the order round."),
    A("runs.pin", "i", "Pin", "Keep this run at the top of the list, or no longer."),
    A("runs.colour", "u", "Colour", "Give this run the next colour for its curves."),
    A("runs.tag", "t", "Tags", "Add tags; one with a minus before it is taken away.", 12, changes=True),
    A("runs.note", "N", "Note", "Write a note to this run.", changes=True),
    A("runs.rename", "f2", "Rename", "Give the run another name.", changes=True),
    A("runs.archive", "A", "Archive", "Take a finished run out of the list, without touching it.", changes=True),
    A(
        "runs.delete",
        "D",
        "Delete",
        "Delete a finished run with its checkpoints; its name must be typed.",
        changes=True,
    ),
    A("runs.again", "l", "Launch like", "Set up a run with the settings of this one.", 9, changes=True),
    A("runs.requeue", "Q", "Queue", "Go to the queue of runs that wait."),
    A("queue.earlier", "K", "Earlier", "Let this run come earlier.", 2, changes=True),
    A("queue.later", "J", "Later", "Let this run come later.", 3, changes=True),
    A("queue.remove", "delete,d", "Remove", "Take this run out of the queue.", 4, changes=True),
    A("queue.start", "s", "Start keeper", "Start the keeper that gives waiting runs their device.", 5, changes=True),
    # ---- steering a run: on the list and on the run's own screen ---------------------------------------------------
    A("steer.pause", "p", "Pause", "Pause after this step, having saved.", 3, changes=True),
    A("steer.unpause", "p", "Resume", "Go on with the run that is paused.", 3, changes=True),
    A("steer.checkpoint", "C", "Checkpoint", "Save a checkpoint at the end of this step.", 14, changes=True),
    A("steer.validate", "V", "Validate", "Validate now.", changes=True),
    A("steer.sample", "T", "Sample", "Generate a sample of text now.", changes=True),
    A(
        "steer.rate",
        "E",
        "Change",
        "Change the learning rate, or another setting, from the next step on.",
        15,
        changes=True,
    ),
    A("steer.stop", "S", "Stop", "Save and end the run after this step; asks first.", 5, changes=True),
    A("steer.kill", "X", "Kill", "End the worker at once without saving; the name must be typed.", changes=True),
    A("steer.resume_run", "R", "Go on", "Start a worker again for a run that was stopped or lost.", 3, changes=True),
    # ---- 4 run -----------------------------------------------------------------------------------------------------
    A("run.next_run", "right_square_bracket", "Next run", "To the next run of the list.", 31),
    A("run.previous_run", "left_square_bracket", "Previous run", "To the run before it in the list.", 30),
    A(
        "run.view",
        "v",
        "View",
        "Go on to the next view: log, console, events, samples and more.",
        4,
    ),
    A("run.full_view", "z", "Full view", "The view below the charts alone on the whole screen, and back.", 17),
    A("run.find", "slash", "Find", "Find a text in the view below.", 10),
    A("run.find_next", "n", "Find next", "To the next place with that text."),
    A("run.find_before", "N", "Find before", "To the place with that text before this one."),
    A("run.mark", "space", "Mark", "Mark this run for a comparison, or take the mark away.", 11),
    A("run.chat", "M", "Chat", "Talk to the newest checkpoint of this run.", 12),
    A("run.charts", "h", "Charts", "Show one, two or four charts.", 16),
    # ---- 5 compare -------------------------------------------------------------------------------------------------
    A("compare.x_axis", "x", "Equal", "Compare at equal tokens, samples, steps, time or FLOPs.", 1),
    A("compare.baseline", "b", "Baseline", "Compare with the run under the cursor.", 2),
    A("compare.unmark", "space,delete", "Remove", "Take the run under the cursor out of the comparison.", 3),
    A("compare.stage", "t", "Stage", "Compare the whole runs, or one stage.", 5),
    A("compare.settings", "v", "View", "Results, or the settings in which the runs differ.", 4),
    A("compare.copy", "C", "Copy", "Copy the comparison as Markdown.", 6),
    # ---- 6 chat ----------------------------------------------------------------------------------------------------
    A("chat.send", "enter", "Send", "Send what is written.", 1),
    A("chat.write", "enter,escape", "Write", "To the field in which one writes.", 1),
    A("chat.newline", "alt+enter,f10", "New line", "A new line in what is written.", 12),
    A("chat.stop", "escape", "Stop", "Stop the answer that is being written.", 2),
    A("chat.leave", "escape", "Leave field", "To the conversation above, where the keys of screens work.", 2),
    A("chat.retry", "ctrl+t", "Retry", "Answer the last turn again, with another seed.", 5),
    A("chat.edit", "f2", "Edit", "Take the last turn back into the editor.", 6),
    A("chat.branch", "ctrl+n", "Branch", "Go on from here in a new conversation, keeping this one.", 11),
    A("chat.conversations", "f3", "History", "Open an earlier conversation.", 9),
    A("chat.model", "f4", "Model", "Choose the run or checkpoint to talk to.", 3),
    A("chat.second", "f5", "Second", "A second model beside the first, on the same prompts; or none.", 7),
    A("chat.reload", "f6", "Newest", "Take the run's newest checkpoint.", 10),
    A("chat.tokens", "f7", "Tokens", "Walk through the answer token by token, with probabilities.", 8),
    A("chat.mode", "f8", "Mode", "Continue a text, or talk in turns.", 4),
    A("slider.less", "left,h", "Less", "Lower this value by a step."),
    A("slider.more", "right,l", "More", "Raise this value by a step."),
    # The screen's own key: named with the nearest ones, so that the line of keys has room for it and a click closes.
    A(
        "tokens.close",
        "f7",
        "Tokens",
        "On to the other answer, where two models speak; then back to the field.",
        0,
        do="screen.tokens",
    ),
    A("tokens.left", "left,h", "Token before", "To the token before.", 1),
    A("tokens.right", "right,l", "Next token", "To the next token.", 2),
    A("tokens.up", "up,k", "Line up", "A line up."),
    A("tokens.down", "down,j", "Line down", "A line down."),
    A("tokens.first", "home,g", "First token", "To the first token."),
    A("tokens.last", "end,G", "Last token", "To the last token."),
    # ---- 7 data ----------------------------------------------------------------------------------------------------
    A("data.prepare", "p", "Prepare", "Turn the plan's text into tokens, or go on with that.", 2, changes=True),
    A("data.stop", "P", "Stop", "Stop preparing this plan; what is done is kept.", 2, changes=True),
    A("data.forget", "x", "Dismiss", "Take preparations that have ended off the screen.", 12),
    A("data.launch", "l", "Launch", "Set up a run under this plan.", 3, changes=True),
    A("data.view", "v", "View", "Go on to the next view: stages, datasets, row, cache.", 4),
    A("data.previous_row", "left_square_bracket", "Row before", "To the packed row before."),
    A("data.next_row", "right_square_bracket", "Next row", "To the next packed row.", 5),
    A("data.row", "number_sign", "Row", "To a packed row by its number."),
    A("data.packing", "m", "Packing", "Pack the row as a stream, by documents, or padded.", 6),
    A("data.dataset", "d", "Dataset", "Go on to the next dataset of the plan.", 7),
    A("data.longer", "plus,equals_sign", "Longer row", "Show rows of twice as many tokens."),
    A("data.shorter", "minus", "Shorter row", "Show rows of half as many tokens."),
    A("data.new", "n", "New", "Copy this plan into the current folder and open it in $EDITOR.", 8, changes=True),
    A("data.edit", "e", "Edit", "Open the plan in $EDITOR.", 10, changes=True),
    A("data.open", "o", "Open", "Open a plan file by its path.", 9),
    A("data.renew", "R", "Renew", "Read the plans again and count them anew."),
    # ---- dialogs ---------------------------------------------------------------------------------------------------
    A("modal.help", "f1", "Help", "Explain the field in focus and list every key that works here.", 90, do="app.help"),
    A("dialog.cancel", "escape", "Cancel", "Close without doing anything.", 2),
    A("dialog.confirm", "enter", "OK", "Do it.", 1),
    A("answer.take", "enter", "OK", "Take what is typed.", 1),
    A("launch.cancel", "escape", "Cancel", "Close; what was filled in is kept for next time.", 9, do="cancel"),
    A("launch.start", "f5,ctrl+r", "Start", "Start the run in a worker of its own.", 1, changes=True),
    A("launch.enqueue", "f6", "Queue", "Let the run wait for its device in the queue.", 2, changes=True),
    A("launch.dry", "f7", "Dry step", "Do one step in a run that is thrown away, to see that it works.", 3),
    A("launch.copy", "f8", "Copy", "Copy the command line.", 4),
    A("launch.empty", "f4", "Empty", "Empty every field but experiment and plan: all as the plan says.", 5),
    A("choice.next", "right,space,l", "Next", "The next choice."),
    A("choice.previous", "left,h", "Before", "The choice before."),
    A("choice.list", "enter", "List", "Show all choices."),
)

BY_ID = {action.id: action for action in ACTIONS}


def bindings_for(*places: str) -> list[BindingType]:
    """The bindings of a widget or screen, as its class variable `BINDINGS`."""
    found = [_binding(action) for action in ACTIONS if action.place in places]
    assert found, places
    return list(found)


def _binding(action: Action) -> Binding:
    return Binding(
        action.keys,
        action.action,
        action.title,
        id=action.id,
        tooltip=action.help,
        show=action.footer is not None,
        priority=action.first,
    )
