"""What the guard knows of English, as data: grammar, words that mean the same thing, and how English asks. Pure."""

from headrace.policies.reuse.lexicon import pairs_of, words_of

#: Passed over: grammar, courtesy, and words without a share in the answer. Prepositions and pronouns of the third
#: person are not here: "for them" and "for us" are two requests.
STOP_WORDS = words_of(
    "a an the is are be been being am was were do does did doing done has have had having i we you it its this these "
    "that there one ones my mine our ours your yours me us please kindly thanks thank can could would should may might "
    "will shall must exactly actually really just also so which who whom what whether somehow perhaps maybe some any "
    "such ever etc oh well ok okay hey hi hello dear want wish possible possibly able myself yourself oneself "
    "basically gonna let and way ways thing things someone somebody anyone anybody process procedure step steps "
    "instruction instructions guide tutorial try currently presently properly correctly successfully nowadays per "
    "considered located situated"
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
    "exercise travel visit use buy sell pay cook clean wear bring keep start stop help find give tell ask call send "
    "open close change add remove delete create install update cancel return fix repair improve lose gain grow build "
    "become stay leave meet join speak talk think feel look save spend earn avoid prevent wait drive fly swim ride "
    "invest vote"
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
            "of for from by than as like before after since over under above below through against across near up down "
            "out off behind around towards toward upon among along beyond despite unlike between"
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
    "known=know grew=grow grown=grow lost=lose left=left kept=keep slept=sleep felt=feel met=meet paid=pay said=say "
    "told=tell sold=sell sent=send spent=spend built=build broke=break broken=break spoke=speak spoken=speak "
    "stole=steal stolen=steal chose=choose chosen=choose froze=freeze frozen=freeze drove=drive driven=drive rode=ride "
    "ridden=ride rose=rise risen=rise ate=eat eaten=eat fell=fall fallen=fall flew=fly flown=fly forgot=forget "
    "forgotten=forget hid=hide hidden=hide held=hold meant=mean ran=run sang=sing sung=sing sank=sink sat=sit "
    "shown=show stood=stand stuck=stick swam=swim threw=throw thrown=throw understood=understand won=win wore=wear "
    "worn=wear began=begin begun=begin became=become drank=drink drunk=drink children=child men=man women=woman "
    "people=people feet=foot teeth=tooth mice=mouse geese=goose knives=knife wolves=wolf halves=half shelves=shelf "
    "owed=owe owes=owe owing=owe dying=die lying=lie tying=tie using=use died=die tied=tie criteria=criterion "
    "analyses=analysis series=series species=species news=news gas=gas bus=bus yes=yes less=less always=always "
    "plus=plus minus=minus virus=virus status=status lens=lens potatoes=potato tomatoes=tomato heroes=hero shoes=shoe "
    "founded=found founding=found lives=live agreed=agree freed=free need=need needed=need feed=feed speed=speed "
    "seed=seed red=red bed=bed led=led sing=sing ring=ring king=king thing=thing spring=spring string=string wing=wing "
    "bring=bring during=during morning=morning evening=evening meeting=meeting him=he his=he her=she hers=she "
    "them=they their=they theirs=they hardly=hardly barely=barely rarely=rarely scarcely=scarcely lately=lately "
    "nearly=nearly building=building wedding=wedding ceiling=ceiling hundred=hundred united=united"
)

#: Pairs of opposites, for the reason of a refusal. Any two words that differ refuse; these say why.
OPPOSITES = """
turn-on turn-off, turn-up turn-down, log-in log-out, start stop, start finish, increase decrease, open close, buy sell,
push pull, import export, encrypt decrypt, allow forbid, allow deny, allow block, add delete, before after, more less,
more fewer, maximum minimum, highest lowest, best worst, biggest smallest, big small, hot cold, warm cool, advantage
disadvantage, up down, upload download, connect disconnect, lock unlock, install uninstall, first last, early late,
accept reject, gain-weight lose-weight, win lose, safe dangerous, legal illegal, healthy bad, good bad, easy hard, cheap
expensive, quick slow, borrow lend, in out, on off, left right, love hate, true false, pass fail, include exclude, mute
unmute, show hide, expand collapse, freeze thaw, arrive leave, rise fall, long short, height short, most least, always
never, public private, ascending descending, internal external, positive negative, plus minus, sign-up unsubscribe,
subscribe unsubscribe, follow unfollow, block unblock, male female, day night, sunrise sunset, heat cool, fill empty,
strengthen weaken, join leave, attach detach, input output, sender receiver, parent child, employer employee, north
south, east west, oldest youngest, longest shortest, hottest coldest, tallest shortest, compress decompress, solid
liquid, credit debit, profit loss, asset liability, above below, from to, over under, insert delete, raise lower, lower
upper, odd even
"""


# Words that mean the same thing.
#
# A class is one concept, `name = word, word`; `;` or the line's end closes it. The name is one of its words. Two words
# share a class only if each can replace the other in a request and the answer stays right. A word of several meanings
# is in none, unless its class has the only meaning that requests use. Classes are small on purpose: a missing pair
# costs a hit, a wrong one serves a wrong answer.

#: Things that callers do or have done: the doer is always the caller or the system. So the place of such a word says
#: nothing of who does what to whom: "reset the password", "a password reset".
ACTIONS = """
turn-on = switch on, activate, enable, activation, power on; turn-off = switch off, deactivate, disable, deactivation,
shut off, power off; turn-up = turn up, crank up; turn-down = turn down; install = installation, set up, setup
uninstall = uninstallation, deinstall; reset = resetting; delete = remove, erase, deletion, removal, get rid of, clear,
get out, eliminate; cancel = cancellation, cancelation, call off, terminate, termination; pause = suspend
change = alter, modify, edit, modification, alteration, adjust, adjustment, update; upgrade; exit = quit
create = make, build, produce, creation, generate; write = compose, draft; find = locate, extract, identify, look for,
search for, seek, track down; fix = repair, mend, solve, resolve, troubleshoot, sort out, remedy, deal with, handle,
resolution, solution, correct, correction, cope with; buy = purchase; clean = wash; cook = prepare; boil; bake; fry
roast; grill; freeze; thaw = defrost; peel; chop; download; upload; translate = translation
summarize = summarise, summary, summarization, sum up, recap, condense; explain = explanation, describe, description,
elaborate, clarify, define, definition, clarification; calculate = compute, calculation, work out, computation,
determine, figure out; contact = get in touch with, reach, reach out to, get hold of, get in contact with,
get through to; return = send back, give back; track = trace, keep track of; monitor = keep an eye on
improve = enhance, improvement, boost, get better at; check = verify, verification, test; compare = comparison, contrast
learn = study; connect = connection, link, hook up, pair; disconnect = unlink; log-in = log in, login, sign in,
log into, sign into, log on, log on to, sign on, log in to, sign in to; log-out = log out, logout, sign out, log off,
sign off; sign-up = sign up, register, registration, create an account, open an account, enroll, enrol, make an account
unsubscribe = opt out; subscribe; rename = change the name of; restart = reboot; recover = restore, retrieve, recovery,
regain; back-up = back up, backup, make a backup; convert = conversion, transform; book = reserve, reservation, schedule
print; sort; reverse = flip; save = store; avoid = prevent, prevention, keep from
take-screenshot = take a screenshot, capture the screen, take a screen shot, screenshot, make a screenshot,
grab the screen; protect = protection, safeguard; secure; share; apply; replace = swap out, replacement, substitute
plant; remember = memorize, memorise; mute = silence; unmute; block; unblock; parse; merge = combine
concatenate = concatenation; iterate = loop, go through; debug; encrypt = encryption; decrypt = decryption
lose-weight = lose weight, weight loss, shed weight, slim down; gain-weight = gain weight, put on weight, weight gain
quit-smoking = quit smoking, stop smoking, give up smoking; fall-asleep = fall asleep, get to sleep
get-refund = get a refund, get my money back, request a refund, refund, receive a refund, money back, ask for a refund
unlock; lock; tie; measure = measurement; count; import; export; increase = raise, increment; decrease = reduce, lower,
decrement, reduction, cut down on; open; close; insert; attach; archive; copy = duplicate; paste; rotate
resize = change the size of; crop; compress; submit = hand in; reply = respond; negotiate; organize = organise
prepare-for = get ready for; train = coach; treat = treatment; cure; view = see, look at, take a look at
pick-up = pick up, collect; assemble = put together; hire = recruit; send = mail; greet; brew; whiten; renew = renewal
invite = invitation; rewrite = rephrase, paraphrase, reword; proofread; classify = categorize, categorise,
classification; close-account = close my account, close an account; redeem; implement = implementation
deploy = deployment; configure; visit; recognize = recognise, spot, detect; unpack; repeat; vacuum; dye; shave; stretch
swim; sew; knit; fold; pack; hide; sharpen; iron; descale
"""

CLASSES = """
start = begin, commence, kick off, get started with, get started; stop = halt, cease; finish = complete, be done with
get = obtain, receive, acquire; use = utilize, utilise, usage, employ, make use of; work = function, operate
show = display; happen = occur, take place, come about; cause = trigger, lead to, bring about, result in
need = require, required, necessary, requirement; help = assist, assistance, aid; allow = permit; choose = select, pick,
opt for; keep = retain; live = reside, dwell; speak = spoken; invent = invention, inventor
discover = discovery, discoverer; found = founder, establish; direct = director; paint = painter; design = designer
die = death, pass away; bear = born, birth, be born; marry = wed, get married to; own = possess
consist = composed, made up, consist of, made of, made out of; mean = meaning, signify, stand for, denote
name = call, named, known as; spell = spelling; pronounce = pronunciation; price = cost, pricing; size = dimension
height = tall; length = long; width = wide; depth = deep; weight = weigh; temperature = temp; amount = quantity
author = writer; population = number of inhabitants, inhabitant, number of residents, number of people living,
people live, resident; capital = capital city; password = passcode; email = e-mail, email address, mail address,
e-mail address; phone = mobile phone, cell phone, cellphone, smartphone, telephone; computer = pc, desktop computer
laptop = notebook computer; picture = image, photo, photograph, pic; movie = film, motion picture; car = automobile
bike = bicycle; plane = airplane, aeroplane, aircraft; doctor = physician; lawyer = attorney; child = kid
father = dad, daddy; mother = mum, mom, mommy; grandmother = grandma; grandfather = grandpa; baby = infant, newborn
job = position, occupation; boss = supervisor; colleague = coworker, co-worker; company = firm, business, corporation,
enterprise; customer = client; employee = staff member; customer-service = customer service, customer support,
support team, support staff, customer care, help desk; house = home; holiday = vacation; trash = garbage, rubbish
couch = sofa; trousers = pants; gasoline = petrol; stomach = belly, tummy; disease = illness, sickness
medicine = medication; fridge = refrigerator; meal = dish; restaurant = place to eat; teacher = instructor
exam = examination; passage = text; message = msg; advantage = benefit, upside, pro, perk, plus point
disadvantage = drawback, downside, con; difference = differ, distinction, different, differentiate, distinguish,
distinguish between; similarity = in common, similar; example = instance; idea = suggestion, proposal, tip,
recommendation, advice, recommend, suggest; problem = issue, trouble, difficulty; error = error message
effect = impact, consequence, influence, affect; goal = aim, purpose, objective; result = outcome; string = str
folder = directory; settings = setting, preferences, preference; account = user account; subscription = membership
package = parcel, shipment; delivery = shipping, deliver, ship; address = street address; app = application
website = site, web site; wi-fi = wifi, wireless network, wireless; dark-mode = dark mode, dark theme, night mode
two-factor = two factor authentication, two step verification, two factor auth, tfa; notification = alert
country = nation; world = globe; road = street; rule = regulation; law = legislation
usa = united states, united states of america, the us, america; uk = united kingdom; eu = european union
un = united nations; new-york = new york city, nyc; netherlands = holland; ww2 = second world war, world war ii, wwii
ww1 = first world war, world war i, wwi; ai = artificial intelligence; machine-learning = ml; big = large, huge,
enormous; biggest = largest; small = little, tiny; smallest = littlest; quick = fast, rapid, quickly, rapidly, speedy
quickest = fastest; slow = slowly; easy = simple, easily, simply, straightforward, easy to understand
easiest = simplest; hard = difficult, challenging, tough; important = crucial, essential, significant, vital, matter,
importance; good = great, decent; best = ideal, optimal; bad = harmful, unhealthy, bad for, harmful to, bad to,
harmful for; healthy = good for you; beautiful = pretty, attractive, lovely; cheap = inexpensive, affordable, low-cost
expensive = costly, pricey; famous = well known, well-known, renowned, celebrated; sick = ill, unwell; happy = glad
sad = sorrowful; angry = furious; tired = exhausted, fatigued; scared = afraid, frightened; strange = weird
slightly = a little, a bit; several = a few, a couple of; free = free of charge, at no cost, for free, without charge,
gratis; smart = intelligent, clever; rich = wealthy; dangerous = hazardous, risky; legal = lawful, legally
main = primary, principal, major; common = widespread, typical, usual; short = brief, concise, briefly
formal = official; enough = sufficient; same = identical; often = frequently; immediately = right away, at once,
straight away, instantly; only = solely, exclusively; all = every, each, entire, whole; many = lot of, lots of,
plenty of, numerous; more = additional, further, extra; because = due to, owing to; bullet = bullet point; poem = poetry
story = tale; vegetable = veggie; breakfast = morning meal; dinner = evening meal, supper; soil = dirt; forest = woods
train-station = train station, railway station; subway = metro, underground; cab = taxi; headache = head pain
tv = television, telly; ad = advertisement, advert, commercial; salary = paycheck; invoice = billing statement
discount = price reduction; deadline = due date; feedback = comments; strategy = game plan; skill = ability
mistake = blunder; chance = likelihood, probability; question = query; answer = response; slang = jargon
rude = impolite; polite = courteous; brave = courageous; quiet = silent; noisy = loud; earth = planet earth
moon = lunar; sun = solar; heart = cardiac; nyse = new york stock exchange; gdp = gross domestic product
ceo = chief executive officer, chief executive; cpu = processor; ram = memory; url = web address; ui = user interface
db = database; repo = repository; config = configuration; bug = defect; regex = regular expression; dictionary = dict
integer = int; boolean = bool; bathroom = restroom, toilet; lose = misplace, missing; forget = forgot
arrive = get there; leave = depart, departure; wait = hang on; buyer = purchaser; seller = vendor
talk = speak to, speak with, talk to, talk with, chat with; human = real person, human being; beginner = novice, newbie
near = close to, nearby; origin = come from, provenance; bright = shiny; dark = dim; sweet = sugary
tasty = delicious, yummy; broken = damaged, defective, faulty; delay = hold up; hurry = rush; guess = estimate
teach = teaching, educate; contain = include, comprise; carry = transport; throw-away = discard, throw out
earn = make money; spend = expenditure; invest = put money; donate = give to charity; fitness = being fit
exercise = workout, work out at; walk = stroll; sleep = slumber; pain = ache, soreness; vaccination = vaccine, jab
pregnant = expecting a baby; electricity = electric power; universe = cosmos; animal = creature; flower = blossom
leaf = leaves; garden = yard; singer = vocalist; battle = fight; army = military; government = administration
vote = voting; tax = taxation; money = cash, funds; rent = rental; hotel = accommodation, place to stay; trip = journey
tourist = traveler, traveller; suitcase = luggage, baggage; parking = park; code = source code
headphone = earphone, earbud; video = clip; spreadsheet = excel sheet; presentation = slide deck; topic = subject
friendly = kind-hearted; funny = humorous, amusing; serious = grave; interesting = fascinating; boring = dull
popular = well-liked; modern = contemporary; ancient = very old; strong = powerful; weak = feeble
"""


# How English asks: the openings of a request that say what kind of answer it wants, and the courtesy around them.

#: Dropped at the beginning of a sentence, again and again.
COURTESY = r"""
(?:hi there|hey there|hi|hello|hey|good (?:morning|afternoon|evening|day)|greetings)\b[,!.:]*
|(?:please|kindly|ok|okay|so|well|sorry|thanks a lot|thanks|thank you(?: very much| so much)?|excuse me
  |quick question|question|just wondering)\b[,!.:]*
|(?:(?:can|could|would|will) (?:you|someone|somebody|anyone|anybody) (?:please |kindly |maybe |possibly |quickly[ ]
  |just )*
   (?=tell|explain|help|show|give|let|describe|list|name|walk|teach|advise|remind|guide|inform|define|clarify|suggest|provide
   |recommend|write|create|generate|compose|draft|translate|summari[sz]e|calculate|compare|check|find|fix|convert|solve))
|(?:(?:can|could|would) you (?:please|kindly)\b)
|(?:(?:do|does|would) (?:you|anyone|anybody|someone) (?:happen to )?(?:actually )?know(?: about)?\b,?)
|(?:(?:i|we) (?:would|really|just|also|only|currently|quickly|'d|do)* ?(?:like|love|want|need|wish) (?:you )?to[ ]
   (?:know|understand|find out|learn|ask|see|hear|figure out|tell me|get to know|be told|explain)(?: to me| more)?
   (?: about)?\b)
|(?:(?:i am|i was|we are|we were) (?:just |currently |really )*(?:wondering|curious|asking myself
  |interested to know)(?: about| to know)?\b)
|(?:i wonder\b) | (?:any idea\b|do you have any idea\b|have you any idea\b) | (?:i (?:do not|have no) (?:know|idea)\b)
|(?:i am not (?:sure|certain)\b) | (?:my question is\b[:,]?) | (?:(?:please )?(?:tell|inform|advise) (?:me
  |us)(?: about)?\b)
|(?:let (?:me|us) know(?: about)?\b) | (?:i have a question\b[:,.]?) | (?:i would appreciate it if\b)
|(?:i (?:would )?(?:need|want|like) (?=a |an |some |the ))
"""

#: Dropped at the end of a sentence.
FAREWELL = r"""
,?\s*\b(?:please|thanks|thank you|thanks a lot|thank you very much|for me|if possible|if you can|if you could
|do you know|in advance|right\?|cheers|how (?:do|can|should) i do (?:that|this|it|so))
"""

#: What stands for a part of many patterns.
PARTS = {
    "who": r"(?:i|we|you|one|someone|somebody|a person|people|users|a user|anyone|customers|a customer|beginners|they)",
    "good": r"(?:(?:best|right|correct|proper|recommended|usual|good|normal|easiest|simplest|standard|ideal) )*",
    "way": r"(?:ways?|(?:\w+ )?command|methods?|process|procedures?|steps?|instructions?|approach|means|technique)",
    "be": r"(?:is|are|was|were|would be|might be)",
    "open": r"(?:what|which)",
}

#: One a line: the kind of answer, a pattern at the beginning of a sentence, and after `=>` what replaces it, so that
#: "what is the height of" and "how tall is" read alike. A line that begins with spaces goes on. The first one that fits
#: wins, so that a longer one stands before its beginning.
FRAMES = r"""
what: at (?:what|which) (?=(?:temperature|age|speed|height|price)\b)
how-to: (?:give me |show me |i need |what is )?(?:a |an |the )?(?:good |simple |easy |best )?recipe for\b => make
how-to: how (?:do|can|could|would) (?:i|you|we|one) (?:know|tell|find out|see|recognize|recognise) (?:if|whether
  |when|that)\b => know if
# How to do something.
how-to: how (?:exactly |best )?(?:do|can|could|should|would|might|shall|must|may|am|are) <who>(?: supposed| able
  | best)?(?: to)?(?: go about| manage to| be able to| best| properly| correctly)?\b(?! (?:know|like|feel|think
  |look))
how-to: how to(?: go about| best| properly| correctly)?\b
how-to: <open> <be> (?:the |a |an |some |my )?<good><way>(?: (?:i|we|you|one) (?:need to|have to|should|must
  |can) (?:take|follow|use))?(?: (?:for (?:me|us) )?(?:to|of|for|in order to)\b)
how-to: <open> <good><way> (?:do|should|must|can|would|could) (?:i|we|you|one) (?:need to |have to )?(?:take|follow
  |use|do|go through)(?: in order)?(?: to| for| when)\b
how-to: what (?:do|does|should|must|can|would|could) <who> (?:need to |have to )?do (?:in order )?to\b
how-to: what (?:is|are) (?:needed|required|necessary|involved) (?:in order )?(?:to|in|for)\b
how-to: what <be> involved in\b
how-to: is there (?:a|any|some|an)? ?<good><way> (?:for (?:me|us) )?(?:to|of|for|i can)\b
how-to: (?:explain|describe|show|teach|demonstrate|outline)(?: to)?(?: me| us)? (?:how (?:to|i can|you can|one can
  |we can|i could|i should|i would|i|you|one)|the <good><way> (?:to|of|for))\b
how-to: (?:give|show|provide|list|send)(?: me| us)?(?: with)?(?: the| a| an| some)?(?: short| quick
  | simple)? (?:<way>|guide|tutorial|directions) (?:on how to|how to|to|for|on|of)\b
how-to: (?:walk|guide|take|talk) (?:me|us) through(?: the (?:steps?|process|procedure)(?: of| to
  | for)?)?(?: how to)?\b
how-to: (?:help|assist|support) (?:me|us)(?: to| with| in)?\b
how-to: (?:i|we) (?:need|want|could use|am looking for|would like)(?: some)? (?:help|assistance|support) (?:with|in
  |to|for)\b
how-to: (?:i|we) (?:would like|want|need|wish|am trying|are trying|am looking|have|plan|try) to\b
how-to: (?:the )?<good>(?:<way>|guide|tutorial|directions) (?:on how to|how to|to|for|on|of)\b
how-to: how (?:is|are|was|were) (?=.*(?:ed|made|built|done|grown|written|sent|paid|found|kept|cut|held|sold)\b)
what: how (?:do|does|are|is) (.+?) (?:differ|different) from\b => difference between \1 and
what: how (?:do|does|are|is) (.+?) (?:differ|different)\b => difference between \1
how-to: what is the (?:correct |right |proper )?(?=(?:pronunciation|spelling|calculation) of\b)
how-to: (?:what is|describe|explain) the treatment (?:for|of)\b => treat
what: (?:explain |describe )?what (?:do|does|did) (.+?) do$ => purpose of \1
what: (?:explain|describe) what (.+?) (?:do|does)$ => purpose of \1
what: what (?:is|are) the (?:job|role|task|function|use|purpose)s? of\b => purpose of
what: what (?:is|are) (.+?) (?:used|meant) for$ => purpose of \1
why: (?:what is |explain |describe )the importance of (.+) => \1 important
what: compare (.+?) (?:and|with|to|vs\.?|versus) (.+) => difference between \1 and \2
who: who (?:is|was|are|were) the (?:author|writer|composer)s? of\b => write
who: who (?:is|was|are|were) the creators? of\b => create
who: who (?:is|was|are|were) the owners? of\b => own
who: who (?:is|was|are|were) the winners? of\b => win
what: how far(?: away)? (?:is|are) (?!.* (?:from|to) )(.+) => distance to \1
how-to: what is the formula (?:for|to)(?: calculating| calculate| computing)?\b => calculate
# Sizes and amounts.
do: (?:what|how much) (?:is|are) (\d\S*(?: [^\s\d]+)?) (?:in|to) (\S+)$ => convert \1 to \2
what: how far(?: away)? is (?:it from )?(.+?) (?:from|to) (.+) => distance between \1 and \2
what: (?:what is |calculate )?the distance from (.+?) to (.+) => distance between \1 and \2
what: (?:how|what) is the weather(?: like)?\b => weather
do: how many (\w+) (?:is|are|make|equal|equals)(?: there)?(?: in)? (\d.*) => convert \2 to \1
what: how (?:long|much time) (?:does|do|will|would) (?!it\b)(.+?)
   (?:usually |normally |typically )?take\b => duration of \1
what: what is the (delivery|shipping|cooking|boiling|baking|waiting|processing|travel|charging|response
  |flight) time\b(?: (?:of|for))? => duration of \1
what: how many (?:people|inhabitants|residents|persons) (?:live|are living|reside|are there) in\b => population of
what: how many (?:people|inhabitants|residents) (?:does|do) (.+?) have\b => population of \1
what: how (?:tall|high) (?:is|are|was|were)\b => height of
what: <open> height (?:is|are|was|does|do)\b => height of
what: how old (?:is|are|was|were)\b => age of
what: how (?:big|large) (?:is|are|was|were)\b => size of
what: how fast (?:is|are|was)\b => speed of
what: how heavy (?:is|are|was|were)\b => weight of
what: how much (?:does|do|did|will) (.+?) weigh\b => weight of \1
what: how deep (?:is|are|was)\b => depth of
what: how wide (?:is|are|was)\b => width of
what: how (?:expensive|pricey|costly) (?:is|are|was|were)\b => price of
what: how much (?:does|do|did|will|would) (?:it cost (?:me )?(?:to)?|i (?:have to |need to )?pay (?:for
  |to))\b => price of
what: how much (?:does|do|did|will|would) (.+?) cost\b => price of \1
what: how much money (?:does|do|did|will|would) (.+?) cost\b => price of \1
what: how much (?:is|are) (?:the|a|an)\b => price of
what: how (?:long|much time) (?:does|do|will|would|should|did|might) (?:it )?(?:usually |normally |typically[ ]
  |generally )?take(?: for)?(?: (?:me|us|you|someone) )?(?: to)?\b => duration of
what: how (?:long|much time) (?:do|does|should|must|will|would) <who> (?:need to |have to |need[ ]
  |take to )?\b => duration of
what: how (?:long|much time) (?:do|does|should|must|will|would)\b => duration of
what: how much time is (?:needed|required)(?: to| for)?\b => duration of
what: <open> <be> the (?:cooking |boiling |baking |required |usual )?(?:duration|time needed|time required)(?: of
  | to| for)?\b => duration of
what: how (?:often|frequently|regularly) (?:do|does|should|must|can|will|would|is|are|did) (?:<who> (?:need to[ ]
  |have to )?)? => frequency of
what: <open> <be> the (?:recommended )?frequency (?:of|for)\b => frequency of
what: how long (?:is|are|was)\b => length of
how-many: how many\b
how-many: <open> <be> the (?:total |exact )?number of\b
how-many: (?:count|state) the number of\b
how-many: <open> number of\b
how-many: (?:the |total )*number of\b
how-much: how much\b
how-much: <open> (?:is the )?(?:amount|quantity) of\b
what: (?:calculate|compute|work out|determine)\b
# Why.
why: (?:(?:explain|describe|understand)(?: to)?(?: me| us)? )?why (?:is it that |exactly )?(?:is it |do we[ ]
  |do you )?\b
why: how come\b
why: (?:for )?what reasons?(?: (?:is|are) there)?(?: for| do| does| did| is| are)?\b
why: <open> <be> (?:the |some |a )?(?:main |exact |underlying )?(?:reasons?|causes?|explanation)(?: why| that| for
  | of| behind)?\b
why: what (?:makes|made|causes|caused|is causing|has caused|leads to|led to)(?: the| a| an)?\b
why: (?:give|name|state|list)(?: me)? the (?:reasons?|causes?) (?:why|for|of|behind)\b
why: (?:the |what )?(?:reasons?|causes?) (?:why|for|of|behind)\b
# When and where.
when-year: (?:in|since) (?:what|which) year\b
when-year: (?:what|which) year\b
when-year: what (?:is|was) the year(?: of| that| when| in which)?\b
when-time: what is the (?:current |local )?time in\b => in
when-time: (?:at )?(?:what|which) time\b
when-day: (?:on )?(?:what|which) (?:day|date)\b
when-day: what (?:is|was) the (?:exact )?date(?: of| that| when| on which)\b
when: when is (?:the |a )?(?:right |best |good |ideal )?time to\b|when exactly\b|when\b
where: (?:in|at) (?:what|which) (?:place|location|spot)\b
where: what is the (?:exact )?location of\b => locate-at
where: (?:in )(?:what|which) (?=(?:city|country|state|continent|town)\b)
where: where (?:exactly )?(?:can|could|should|do|would) (?:i|we|you|one) (?:find|see)\b
where-can: where (?:can|could|should|do|would) (?:i|we|you|one)\b
where: where exactly\b|where\b
# Who.
who: what (?:is|was) the name of the (?:person|man|woman|guy|people) (?:who|that)\b
who: (?:what|which) person\b
who: (?:what|which) (?=(?:team|artist|actor|actress|painter|poet|singer|scientist)\b)
who: by whom\b|who\b|whom\b
whose: whose\b
name: what (?:is|was|are) the names? of\b
how-to: how (?:can|could|should|must) (.+?) be (?=\w) => \1
how: how (?:do|does|did|is|are|was|were|can|could|would|will|has|have)\b
how: (?:explain|describe)(?: to)?(?: me| us)? how\b|how\b
# Yes or no.
whether: is it (?:true|the case|correct|right)(?: that)?\b|is it a fact that\b
whether: whether\b|if\b
whether-can: is it (?:possible|ok|okay|allowed|permitted|fine|alright|all right|feasible|permissible)(?: for (?:me
  |us|you|someone))?(?: to| if i)?\b
whether-can: (?:am i|are we|are you|is one) (?:able|allowed|permitted) to\b
whether-should: (?:is it|would it be) (?:advisable|recommended|a good idea|recommendable|wise
  |sensible)(?: for me)?(?: to)?\b
whether-must: (?:do|does) <who> (?:have|need) to\b|is it (?:necessary|required|mandatory
  |compulsory)(?: for me)?(?: to)?\b|am i required to\b
whether-must: must\b
whether-should: (?:should|ought|shall)\b
can-you: (?:can|could) you\b(?: please)?
do: (?:would|will) you\b(?: please)?
whether-can: (?:can|could|may|might)\b
whether: (?:is|are|was|were|do|does|did|will|would|has|have|had|am)\b
# What.
do: (?:write|compose|draft|create|generate|make|produce|prepare|come up with)(?: me| us)?(?: a| an| some| the)?\b
what: (?:give|provide|write|make|create)(?: me| us)?(?: with)? (?:a |an |the )?(?:short |brief |quick |concise[ ]
  |simple )?(?=summary|explanation|description|definition|translation|comparison|overview|recap)
what: <open> (?:does|do|did) (.+?) (?:mean|stand for|signify)\b => \1
what: <open> (?:is|are) (?:meant|understood) by\b
what: what do (?:you|we|people) mean by\b
what: <open> <be> (?:the )?(?:meaning|definition) of\b
what: (?:the )?(?:meaning|definition) of\b
explain: (?:explain|describe|define|clarify)(?: to)?(?: me| us)?(?: briefly)?(?: (?:the )?(?:meaning|concept|idea
  |notion|term|definition)(?: of)?)?(?: what)?(?: (?:a |an |the )?)\b
what: what (?:city|town) is (?:the )?capital\b => capital
what: which (?:city|town) is (?:the )?capital\b => capital
what: (?:name|list|give|show|tell|provide|state|enumerate|identify|mention|suggest|recommend)(?: me
  | us)?(?: with)?\b(?: what)?
what: <open>\b(?: <be>\b)?
"""
