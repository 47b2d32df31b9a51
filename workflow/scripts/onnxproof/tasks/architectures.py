"""What transformers 5.24.0 has: model types, what each takes, and the tasks they serve.

A copy of its registry, written by tools/list_architectures.py, so that a model of another type is refused before
anything is downloaded, by steps that do not have transformers. A test holds it against the installed one.
"""


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: task → the values of ``model_type`` in config.json that transformers has a class for.
SERVED: dict[str, frozenset[str]] = {
    "audio-classification": _types(
        """
        audio-spectrogram-transformer data2vec-audio hubert sew sew-d unispeech unispeech-sat wav2vec2 wav2vec2-bert
        wav2vec2-conformer wavlm whisper
        """
    ),
    "audio-frame-classification": _types(
        """
        data2vec-audio nemotron3_diarization unispeech-sat wav2vec2 wav2vec2-bert wav2vec2-conformer wavlm
        """
    ),
    "audio-xvector": _types(
        """
        data2vec-audio unispeech-sat wav2vec2 wav2vec2-bert wav2vec2-conformer wavlm
        """
    ),
    "automatic-speech-recognition": _types(
        """
        data2vec-audio hubert lasr_ctc omniasr_ctc parakeet_ctc sew sew-d unispeech unispeech-sat wav2vec2
        wav2vec2-bert wav2vec2-conformer wavlm
        """
    ),
    "depth-estimation": _types(
        """
        chmv2 depth_anything depth_pro dpt glpn prompt_depth_anything tipsv2_dpt zoedepth
        """
    ),
    "feature-extraction": _types(
        """
        afmoe albert apertus apertus1p5_text arcee aria_text audio-spectrogram-transformer axk1 axk2 bailing_hybrid
        bamba bart beam bert bert-generation big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small
        bloom blt camembert canine codegen cohere cohere2 cohere2_moe cohere_compass_text convbert cpmant ctrl cwm
        data2vec-audio data2vec-text dbrx deberta deberta-v2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4
        diffllama distilbert doge dory dots1 dots3_note_text electra embedding_gemma2_text ernie ernie4_5
        ernie4_5_moe esm esmc eurobert exaone exaone4 exaone_moe falcon falcon_h1 falcon_mamba flaubert flex_olmo
        flint fnet fsmt gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe
        glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite
        granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared gte helium hrm_text hubert
        hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax ibert inkling2_loop_text inkling2_text inkling_text
        internlm3 iquestcoder jais2 jamba jetmoe jina_embeddings_v3 kimi_linear kolibri1 laguna lara_mini lasr_ctc
        led lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash longformer longt5 luke m2m_100 mamba mamba2 marian
        mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral ministral3
        mistral mixtral mobilebert modernbert modernbert-decoder moonshine mpnet mpt mt5 mvp nanochat nemotron
        nemotron3_5_transcribe_word_timestamp nemotron3_diarization nemotron_h nllb-moe nomic_bert nystromformer
        olmo olmo2 olmo3 olmo_hybrid olmoe omniasr_ctc openai-gpt opt parakeet_ctc pegasus pegasus_x persimmon phi
        phi3 phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text
        recurrent_gemma reformer rembert roberta roberta-prelayernorm roc_bert roformer rwkv sarvam_mla sarvam_moe
        seed_oss sew sew-d smollm3 solar_open speech_to_text splinter squeezebert stablelm starcoder2
        switch_transformers t5 t5gemma ultrabert umt5 unispeech unispeech-sat vaultgemma wav2vec2 wav2vec2-bert
        wav2vec2-conformer wavlm whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod yoso youtu zamba
        zamba2 zaya
        """
    ),
    "fill-mask": _types(
        """
        albert bart bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie esm
        esmc eurobert flaubert fnet gte ibert jina_embeddings_v3 longformer luke mbart megatron-bert mobilebert
        modernbert mpnet mvp nomic_bert nystromformer reformer rembert roberta roberta-prelayernorm roc_bert
        roformer squeezebert ultrabert xlm xlm-roberta xlm-roberta-xl xmod yoso
        """
    ),
    "image-classification": _types(
        """
        beit bit convnext convnextv2 cvt data2vec-vision deit dinat dinov2 dinov2_with_registers donut-swin
        efficientnet focalnet hgnet_v2 hiera ijepa imagegpt levit mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2
        perceiver poolformer pvt pvt_v2 regnet resnet segformer shieldgemma2 swiftformer swin swinv2 textnet
        timm_wrapper vit vit_msn
        """
    ),
    "image-feature-extraction": _types(
        """
        aimv2_vision_model beit bit clip_vision_model conditional_detr convnext convnextv2 cvt d_fine dab-detr
        data2vec-vision deformable_detr deit depth_pro detr dinat dinov2 dinov2_with_registers dinov3_convnext
        dinov3_vit donut-swin dpt efficientnet focalnet glpn hgnet_v2 hiera ijepa imagegpt levit lw_detr mask2former
        maskformer mgp-str mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 oneformer perceiver pixio poolformer
        pp_ocrv5_mobile_rec pp_ocrv5_server_rec pp_ocrv6_small_rec pp_ocrv6_tiny_rec pvt pvt_v2 regnet resnet
        rf_detr rt_detr rt_detr_v2 sapiens2 segformer siglip_vision_model swiftformer swin swin2sr swinv2
        table-transformer textnet timm_wrapper tipsv2_vision_model vit vit_msn vitdet yolos
        """
    ),
    "image-segmentation": _types(
        """
        detr mask2former maskformer oneformer videomt
        """
    ),
    "image-text-to-text": _types(
        """
        gemma3 idefics3 llava qwen2_5_vl qwen2_vl smolvlm
        """
    ),
    "image-to-image": _types(
        """
        swin2sr
        """
    ),
    "image-to-text": _types(
        """
        pix2struct vision-encoder-decoder
        """
    ),
    "multiple-choice": _types(
        """
        albert bert big_bird camembert canine convbert data2vec-text deberta-v2 distilbert electra ernie flaubert
        fnet ibert longformer luke megatron-bert mobilebert modernbert mpnet nystromformer rembert roberta
        roberta-prelayernorm roc_bert roformer squeezebert xlm xlm-roberta xlm-roberta-xl xlnet xmod yoso
        """
    ),
    "object-detection": _types(
        """
        conditional_detr d_fine dab-detr deformable_detr detr lw_detr rf_detr rt_detr rt_detr_v2 table-transformer
        yolos
        """
    ),
    "question-answering": _types(
        """
        albert arcee bart bert big_bird bigbird_pegasus bloom camembert canine convbert data2vec-text deberta
        deberta-v2 diffllama distilbert electra ernie exaone4 falcon flaubert fnet gpt2 gpt_neo gpt_neox gptj ibert
        jina_embeddings_v3 led llama longformer luke mbart megatron-bert minimax ministral ministral3 mistral
        mixtral mobilebert modernbert mpnet mpt mt5 mvp nemotron nystromformer opt qwen2 qwen2_moe qwen3 qwen3_moe
        qwen3_next reformer rembert roberta roberta-prelayernorm roc_bert roformer seed_oss smollm3 splinter
        squeezebert t5 ultrabert umt5 xlm xlm-roberta xlm-roberta-xl xlnet xmod yoso
        """
    ),
    "semantic-segmentation": _types(
        """
        beit data2vec-vision dpt mobilenet_v2 mobilevit mobilevitv2 sapiens2 segformer tipsv2_dpt upernet
        """
    ),
    "sentence-similarity": _types(
        """
        afmoe albert apertus apertus1p5_text arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert
        bert-generation big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom blt camembert
        canine codegen cohere cohere2 cohere2_moe cohere_compass_text convbert cpmant ctrl cwm data2vec-text dbrx
        deberta deberta-v2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama distilbert doge dory dots1
        dots3_note_text electra embedding_gemma2_text ernie ernie4_5 ernie4_5_moe esm esmc eurobert exaone exaone4
        exaone_moe falcon falcon_h1 falcon_mamba flaubert flex_olmo flint fnet fsmt gemma gemma2 gemma3_text
        gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode
        gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa
        granitemoehybrid granitemoeshared gte helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4
        hyperclovax ibert inkling2_loop_text inkling2_text inkling_text internlm3 iquestcoder jais2 jamba jetmoe
        jina_embeddings_v3 kimi_linear kolibri1 laguna lara_mini led lfm2 lfm2_moe lfm3 llama llama4_text
        longcat_flash longformer longt5 luke m2m_100 mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash
        minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mobilebert modernbert
        modernbert-decoder mpnet mpt mt5 mvp nanochat nemotron nemotron3_5_transcribe_word_timestamp nemotron_h
        nllb-moe nomic_bert nystromformer olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt pegasus pegasus_x
        persimmon phi phi3 phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_moe qwen3_next
        qwen4_exp_text recurrent_gemma reformer rembert roberta roberta-prelayernorm roc_bert roformer rwkv
        sarvam_mla sarvam_moe seed_oss smollm3 solar_open splinter squeezebert stablelm starcoder2
        switch_transformers t5 t5gemma ultrabert umt5 vaultgemma xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm
        xmod yoso youtu zamba zamba2 zaya
        """
    ),
    "speech-to-text": _types(
        """
        moonshine speech_to_text whisper
        """
    ),
    "text-classification": _types(
        """
        albert arcee axk1 axk2 bart bert big_bird bigbird_pegasus biogpt bloom camembert canine cohere_compass_text
        convbert ctrl data2vec-text deberta deberta-v2 deepseek_v2 deepseek_v3 diffllama distilbert doge electra
        ernie esm esmc eurobert exaone4 falcon flaubert fnet gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode
        gpt_neo gpt_neox gpt_oss gptj gte helium hunyuan_v1_dense hunyuan_v1_moe ibert jamba jetmoe
        jina_embeddings_v3 llama longformer luke mbart megatron-bert minicpm3 minimax ministral ministral3 mistral
        mixtral mobilebert modernbert modernbert-decoder mpnet mpt mt5 mvp nemotron nomic_bert nystromformer olmo
        olmo2 olmo3 openai-gpt opt persimmon phi phi3 phimoe plbart qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next
        reformer rembert roberta roberta-prelayernorm roc_bert roformer seed_oss smollm3 squeezebert stablelm
        starcoder2 t5 t5gemma ultrabert umt5 xlm xlm-roberta xlm-roberta-xl xlnet xmod yoso zamba zamba2
        """
    ),
    "text-generation": _types(
        """
        afmoe apertus apertus1p5_text arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation
        big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom blt camembert codegen cohere
        cohere2 cohere2_moe cohere_compass_text cpmant ctrl cwm data2vec-text dbrx deepseek_v2 deepseek_v3
        deepseek_v32 deepseek_v4 diffllama doge dory dots1 dots3_note_text electra ernie ernie4_5 ernie4_5_moe
        exaone exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint gemma gemma2 gemma3_text
        gemma3n_text gemma4_assistant gemma4_text gemma4_unified_assistant gemma4_unified_text glm glm4 glm4_moe
        glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite
        granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense
        hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_loop_text inkling2_text inkling_text internlm3 iquestcoder
        jais2 jamba jetmoe kimi_linear kolibri1 laguna lara_mini lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash
        mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl_text
        ministral ministral3 mistral mixtral modernbert-decoder mpt mvp nanochat nemotron nemotron_h olmo olmo2
        olmo3 olmo_hybrid olmoe openai-gpt opt pegasus persimmon phi phi3 phimoe plbart prophetnet qwen2 qwen2_moe
        qwen3 qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text recurrent_gemma reformer rembert roberta
        roberta-prelayernorm roc_bert roformer rwkv sarvam_mla sarvam_moe seed_oss smollm3 solar_open stablelm
        starcoder2 vaultgemma xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod youtu zamba zamba2 zaya
        """
    ),
    "text-recognition": _types(
        """
        pp_ocrv5_mobile_rec pp_ocrv5_server_rec pp_ocrv6_small_rec pp_ocrv6_tiny_rec
        """
    ),
    "text2text-generation": _types(
        """
        bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt led longt5 m2m_100 marian mbart mt5
        mvp nllb-moe pegasus pegasus_x plbart prophetnet switch_transformers t5 t5gemma umt5
        """
    ),
    "token-classification": _types(
        """
        albert apertus arcee axk1 axk2 beam bert big_bird biogpt bloom camembert canine convbert data2vec-text
        deberta deberta-v2 deepseek_v3 diffllama distilbert electra ernie esm esmc eurobert exaone4 falcon flaubert
        fnet gemma gemma2 glm glm4 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gte helium ibert jina_embeddings_v3
        llama longformer luke megatron-bert minimax ministral ministral3 mistral mixtral mobilebert modernbert mpnet
        mpt mt5 nemotron nomic_bert nystromformer persimmon phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next
        rembert roberta roberta-prelayernorm roc_bert roformer seed_oss smollm3 squeezebert stablelm starcoder2 t5
        t5gemma ultrabert umt5 xlm xlm-roberta xlm-roberta-xl xlnet xmod yoso
        """
    ),
    "zero-shot-image-classification": _types(
        """
        chinese_clip clip metaclip_2 siglip
        """
    ),
    "zero-shot-object-detection": _types(
        """
        owlv2 owlvit
        """
    ),
}

#: What a model takes, where that is not text alone → its ``model_type``. No evaluation inputs are made for
#: "other".
TAKES: dict[str, frozenset[str]] = {
    "image": _types(
        """
        aimv2_vision_model beit bit chmv2 clip_vision_model conditional_detr convnext convnextv2 cvt d_fine dab-detr
        data2vec-vision deformable_detr deimv2 deit depth_anything depth_pro detr dinat dinov2 dinov2_with_registers
        dinov3_convnext dinov3_vit donut-swin dpt efficientnet eomt eomt_dinov3 focalnet glpn hgnet_v2 hiera ijepa
        imagegpt levit lw_detr mask2former maskformer mgp-str mlcd mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2
        oneformer perceiver pix2struct pixio poolformer pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 pp_lcnet
        pp_ocrv5_mobile_det pp_ocrv5_mobile_rec pp_ocrv5_server_det pp_ocrv5_server_rec pp_ocrv6_medium_det
        pp_ocrv6_small_det pp_ocrv6_small_rec pp_ocrv6_tiny_rec prompt_depth_anything pvt pvt_v2 radio regnet resnet
        rf_detr rt_detr rt_detr_v2 sapiens2 segformer shieldgemma2 siglip2_vision_model siglip_vision_model
        swiftformer swin swin2sr swinv2 table-transformer textnet timm_wrapper tipsv2_dpt tipsv2_vision_model trocr
        upernet videomt vision-encoder-decoder vit vit_mae vit_msn vitdet yolos zoedepth
        """
    ),
    "image+prompt": _types(
        """
        gemma3 idefics3 llava qwen2_5_vl qwen2_vl smolvlm
        """
    ),
    "image+texts": _types(
        """
        align altclip blip blip-2 chinese_clip clip clipseg grounding-dino metaclip_2 mm-grounding-dino omdet-turbo
        owlv2 owlvit siglip siglip2 tipsv2 videoprism
        """
    ),
    "other": _types(
        """
        aimv2 apertus1p5 aria audioflamingo3 audioflamingo3_encoder autoformer aya_vision bark blip_2_qformer
        bridgetower bros canary chameleon chinese_clip_vision_model clap clip_text_model clvp cohere2_vision
        cohere_asr cohere_compass cohere_compass_vision colmodernvbert colpali colqwen2 cosmos3_edge
        cosmos3_edge_text cosmos3_edge_vision cosmos3_omni csm dac decision_transformer deepseek_ocr2 deepseek_vl
        deepseek_vl_hybrid dia diffusion_gemma dots3_note dpr edgetam edgetam_video edgetam_vision_model
        efficientloftr embedding_gemma2 emu3 encodec ernie4_5_vl_moe evolla exaone4_5 exaone4_5_vision fast_vlm
        fastspeech2_conformer fastspeech2_conformer_with_hifigan flava florence2 fun_asr_nano fun_asr_nano_encoder
        fuyu gemma3n gemma3n_audio gemma3n_vision gemma4 gemma4_audio gemma4_unified gemma4_vision git glm46v glm4v
        glm4v_moe glm4v_moe_text glm4v_moe_vision glm4v_text glm4v_vision glm5_next glm5_next_text glm5_next_vision
        glm_image glm_image_text glm_image_vision glm_image_vqmodel glm_ocr glm_ocr_text glm_ocr_vision glmasr
        glmasr_encoder glmga got_ocr2 gradium_phonon_tts granite4_vision granite_docling granite_docling_text
        granite_docling_vision granite_speech granite_speech5_encoder granite_speech_plus groupvit higgs_audio_v2
        higgs_audio_v2_tokenizer hunyuan_vl hunyuan_vl_text hunyuan_vl_vision hy_v4_vl hy_v4_vl_text hy_v4_vl_vision
        hyperclovax_vision_v2 idefics idefics2 idefics3_vision informer inkling2 inkling2_loop inkling2_vision
        inkling_mm_model instructblip instructblipvideo internvl internvl_vision janus kimi_k25 kimi_k25_vision
        kosmos-2 kosmos-2.5 kyutai_speech_to_text lasr_encoder layoutlm layoutlmv2 layoutlmv3 layoutxlm lfm2_vl
        lfm3_vl lfm3_vl_vision lightglue lighton_ocr lilt llama4 llava_next llava_next_video llava_onevision lxmert
        markuplm maskformer-swin mimi mimi_decoder mimi_encoder minicpm_ocr minicpm_ocr_vision minicpmv4_6
        minicpmv4_7 minicpmv4_7_vision minimax_m3_vl mistral3 mistral4 mistral_large4 mistral_large4_text
        mlcd_vision_model mllama modernvbert molmo2 molmo2_text moonshine_streaming moshi moss_transcribe_diarize
        moss_transcribe_diarize_audio muse_glimmer muse_glimmer_assistant muse_glimmer_text muse_glimmer_vision
        muse_spark muse_spark_audio muse_spark_text muse_spark_vision musicflamingo musicgen musicgen_melody
        nemo_speechlm nemotron3_5_asr nemotron3_5_transcribe_asr_audio nemotron3_5_transcribe_audio
        nemotron3_diarization_audio nemotron_asr_streaming nemotron_asr_streaming_encoder nemotron_h_omni neomme
        neucodec nougat omniasr omniasr_audio openai_privacy_filter ovis2 paddleocr_vl paligemma parakeet_encoder
        parakeet_rnnt parakeet_tdt patchtsmixer patchtst pe_audio pe_audio_encoder pe_audio_video
        pe_audio_video_encoder pe_video pe_video_encoder perception_lm phi4_multimodal pi0 pixtral pocket_tts
        pocket_tts_audio_tokenizer pocket_tts_audio_tokenizer_decoder pocket_tts_audio_tokenizer_encoder pop2piano
        pp_chart2table pp_formulanet qianfan_ocr qianfan_ocr_vision qwen2_5_omni qwen2_5_omni_thinker
        qwen2_5_vl_text qwen2_5_vl_vision qwen2_audio qwen2_audio_encoder qwen2_vl_text qwen3_5 qwen3_5_moe
        qwen3_5_moe_vision qwen3_5_vision qwen3_asr qwen3_asr_encoder qwen3_omni_moe qwen3_omni_moe_thinker qwen3_vl
        qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_moe_vision qwen3_vl_text qwen3_vl_vision qwen4_exp qwen4_exp_vision
        sam sam2 sam2_hiera_det_model sam2_video sam2_vision_model sam3 sam3_lite_text sam3_lite_text_text_model
        sam3_tracker sam3_tracker_video sam3_video sam3_vision_model sam3_vit_model sam_hq sam_hq_vision_model
        sam_vision_model seamless_m4t seamless_m4t_v2 seggpt slanet slanext smolvlm_vision speecht5 step3p7
        superglue superpoint t5gemma2 t5gemma2_encoder tapas time_series_transformer timesfm timesfm2_5 timesformer
        timm_backbone tipsv2_text_model tvp udop ultravbert univnet unlimited_ocr uvdoc vibevoice
        vibevoice_acoustic_tokenizer vibevoice_acoustic_tokenizer_decoder vibevoice_acoustic_tokenizer_encoder
        vibevoice_asr video_llama_3 video_llama_3_vision video_llava videomae videoprism_vision_model vilt vipllava
        vision-text-dual-encoder visual_bert vitmatte vitpose vits vivit vjepa2 voxtral voxtral_encoder
        voxtral_realtime voxtral_realtime_encoder voxtral_realtime_text wavtokenizer wavtokenizer_encoder xclip
        xcodec xcodec2
        """
    ),
    "sound": _types(
        """
        audio-spectrogram-transformer data2vec-audio granite_speech5_ctc hubert lasr_ctc moonshine
        nemotron3_diarization omniasr_ctc parakeet_ctc sew sew-d speech_to_text unispeech unispeech-sat wav2vec2
        wav2vec2-bert wav2vec2-conformer wavlm whisper
        """
    ),
}
