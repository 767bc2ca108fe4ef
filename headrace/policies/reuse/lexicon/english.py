"""English grammar, as far as the guard needs it: what it passes over, what it counts, and irregular forms."""

from headrace.policies.reuse.lexicon import pairs_of, words_of

#: Passed over: grammar, courtesy, and words without a share in the answer. Prepositions and pronouns of the third
#: person are not here: "for them" and "for us" are two requests.
STOP_WORDS = words_of(
    "a an the is are be been being am was were do does did doing done has have had having i we you it its this these "
    "that there one ones my mine our ours your yours me us please kindly thanks thank can could would should "
    "may might will "
    "shall must exactly actually really just also so which who whom what whether somehow perhaps maybe some any "
    "such ever etc oh well ok okay hey hi hello dear want wish possible possibly able myself yourself oneself "
    "basically gonna let and way ways thing things someone somebody anyone anybody process procedure "
    "step steps instruction instructions guide tutorial try currently presently properly correctly "
    "successfully nowadays per considered "
    "located situated"
)

#: May stand in one text alone, by what is asked: without them it asks the same. No adjective is here: a good credit
#: score is no credit score.
OPTIONAL_WORDS = {
    "": words_of("form word term people"),
    "who": words_of("team artist actor actress painter poet singer scientist person current"),
    "where": words_of("city place location spot"),
    "why": words_of("happen exist get"),
    "how": words_of("work"),
    "explain": words_of("work"),
}

#: Judgements, whose place says nothing in "is it safe to eat that" and "is eating that safe".
JUDGEMENTS = words_of("good bad safe dangerous healthy legal illegal important necessary easy hard expensive possible")

#: After "to" these are infinitives.
VERBS = words_of(
    "be have do go get make take see know eat drink sleep walk run play read write watch listen learn study live work "
    "exercise travel visit use buy sell pay cook clean wear bring keep start stop help find give tell "
    "ask call send open "
    "close change add remove delete create install update cancel return fix repair improve lose gain grow build become "
    "stay leave meet join speak talk think feel look save spend earn avoid prevent wait drive fly swim ride invest vote"
)

#: Join two things in either order.
JOINERS = frozenset(["and", "or", "vs", "versus"])

#: Begin a new clause, besides punctuation.
CLAUSE_WORDS = words_of("but because although though while unless however whereas except if when where")

NEGATIONS = words_of("not never no none nobody nothing neither nor without except excluding")

#: A preposition, and the label that it gives to what follows. Those of one label can replace each other.
PREPOSITIONS = {
    **dict.fromkeys(["in", "on", "at", "within", "inside", "during"], "in"),
    **dict.fromkeys(["to", "into", "onto"], "to"),
    **dict.fromkeys(["about", "regarding", "concerning"], "about"),
    **dict.fromkeys(["with", "using", "via"], "with"),
    **dict.fromkeys(["until", "till"], "until"),
    **{
        word: word
        for word in words_of(
            "of for from by than as like before after since over under above below through against across "
            "near up down out off behind around towards toward upon among along beyond despite unlike between"
        )
    },
}

#: After one of these, "to" begins an infinitive and says nothing of a direction.
BEFORE_INFINITIVE = words_of(
    "how way ways want need like able possible steps step method process order have try trying going used allowed safe "
    "easy hard best need needs wish learn ok okay legal want wants required supposed start begin continue plan "
    "instructions guide time not necessary do is it me us you what when where whether helps help"
)

#: End a verb of two parts, also far from it: "turn the light off".
PARTICLES = words_of("on off in out up down back away over")

#: Irregular forms and their base; the rest follows rules.
IRREGULAR = pairs_of(
    "wrote=write written=write made=make bought=buy brought=bring thought=think taught=teach caught=catch went=go "
    "gone=go got=get gotten=get gave=give given=give took=take taken=take came=come saw=see seen=see knew=know "
    "known=know grew=grow grown=grow lost=lose left=left kept=keep slept=sleep felt=feel met=meet paid=pay "
    "said=say "
    "told=tell sold=sell sent=send spent=spend built=build broke=break broken=break spoke=speak spoken=speak "
    "stole=steal stolen=steal chose=choose chosen=choose froze=freeze frozen=freeze drove=drive driven=drive "
    "rode=ride ridden=ride rose=rise risen=rise ate=eat eaten=eat fell=fall fallen=fall flew=fly flown=fly "
    "forgot=forget forgotten=forget hid=hide hidden=hide held=hold meant=mean ran=run sang=sing sung=sing "
    "sank=sink "
    "sat=sit shown=show stood=stand stuck=stick swam=swim threw=throw thrown=throw understood=understand won=win "
    "wore=wear worn=wear began=begin begun=begin became=become drank=drink drunk=drink children=child men=man "
    "women=woman people=people feet=foot teeth=tooth mice=mouse geese=goose knives=knife wolves=wolf halves=half "
    "shelves=shelf owed=owe owes=owe owing=owe dying=die lying=lie tying=tie using=use died=die tied=tie criteria="
    "criterion analyses=analysis series=series species=species news=news gas=gas bus=bus yes=yes less=less always="
    "always plus=plus minus=minus virus=virus status=status lens=lens potatoes=potato tomatoes=tomato heroes=hero "
    "shoes=shoe founded=found founding=found lives=live agreed=agree freed=free need=need needed=need feed=feed "
    "speed=speed seed=seed red=red bed=bed led=led sing=sing ring=ring king=king thing=thing spring=spring "
    "string=string wing=wing bring=bring during=during morning=morning evening=evening meeting=meeting "
    "him=he his=he her=she hers=she them=they their=they theirs=they "
    "hardly=hardly barely=barely rarely=rarely scarcely=scarcely lately=lately nearly=nearly "
    ""
    "building=building wedding=wedding ceiling=ceiling hundred=hundred united=united"
)

#: Pairs of opposites, for the reason of a refusal. Any two words that differ refuse; these say why.
OPPOSITES = """
turn-on turn-off, turn-up turn-down, log-in log-out, start stop, start finish, increase decrease, open close, buy sell,
push pull, import export, encrypt decrypt, allow forbid, allow deny, allow block, add delete, before after,
more less, more
fewer, maximum minimum, highest lowest, best worst, biggest smallest, big small, hot cold, warm cool, advantage
disadvantage, up down, upload download, connect disconnect, lock unlock, install uninstall, first last, early late,
accept
reject, gain-weight lose-weight, win lose, safe dangerous, legal illegal, healthy bad, good bad, easy hard,
cheap expensive,
quick slow, borrow lend, in out, on off, left right, love hate, true false, pass fail, include exclude, mute unmute,
show
hide, expand collapse, freeze thaw, arrive leave, rise fall, long short, height short, most least, always never, public
private, ascending descending, internal external, positive negative, plus minus, sign-up unsubscribe, subscribe
unsubscribe, follow unfollow, block unblock, male female, day night, sunrise sunset, heat cool, fill empty, strengthen
weaken, join leave, attach detach, input output, sender receiver, parent child, employer employee, north south,
east west,
oldest youngest, longest shortest, hottest coldest, tallest shortest, compress decompress, solid liquid, credit debit,
profit loss, asset liability, above below, from to, over under, insert delete, raise lower, lower upper, odd even
"""
